"""The random numbers of one process's rows among those of a whole minibatch.

A random operator sees shapes, and a dimension of the right size may be draws, latents or channels as well as rows. So
the program runs a few times on other numbers of rows and of particles first: the dimension that grows with the rows is
theirs, whatever its size is in a step. The doors are :func:`find_layouts` and :class:`UnionNoise`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.foundation.torch_internals import DispatchMode, is_mutable

# Numbers of rows that the program is tried with
_FEW, _MORE = 2, 3
_ADVICE = "Fit in one process."


class Span(NamedTuple):
    """The rows in a shape: dimension ``dim`` joins ``outer`` particles, the rows, and ``inner`` elements of a row."""

    dim: int
    outer: int
    inner: int


class Layout(NamedTuple):
    """A random operator: the spans of its arguments and of its results, None for what has no rows."""

    operator: Any
    arguments: tuple[Span | None, ...]
    results: tuple[Span | None, ...]
    # the arguments' shapes, with the size of a row in the place of the rows' dimension
    shapes: tuple[tuple[int, ...] | None, ...]

    def fits(self, operator: Any, args: Sequence[Any], num_rows: int) -> bool:
        """True if a call of ``operator`` with ``args`` for ``num_rows`` rows can be this one."""
        if operator is not self.operator or len(args) != len(self.arguments):
            return False
        known = zip(args, self.arguments, self.shapes, strict=True)
        return all(_shape_of(arg) == _whole(shape, span, num_rows) for arg, span, shape in known)


class _Call(NamedTuple):
    """A random operator in a trial, with the shapes of its arguments and results."""

    operator: Any
    arguments: tuple[tuple[int, ...] | None, ...]
    results: tuple[tuple[int, ...] | None, ...]


class _Trial(DispatchMode):
    """Notes the random operators inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            results = out if isinstance(out, tuple) else (out,)
            self.calls.append(_Call(func, tuple(map(_shape_of, args)), tuple(map(_shape_of, results))))
        return out


class Layouts(NamedTuple):
    """The random operators of a program in their order; ``is_in_order`` says that their number never differs."""

    layouts: list[Layout]
    is_in_order: bool

    def of(self, number: int, operator: Any, args: Sequence[Any], num_rows: int) -> Layout:
        """The layout of the call of ``operator`` that comes after ``number`` others.

        Raises :class:`~probvae.errors.ArgumentError` for a call of which it is not known where its rows are.
        """
        if self.is_in_order and number < len(self.layouts) and self.layouts[number].fits(operator, args, num_rows):
            return self.layouts[number]
        found = {layout for layout in self.layouts if layout.fits(operator, args, num_rows)}
        if len({layout[:3] for layout in found}) != 1:
            raise ArgumentError(
                "distributed: expected random numbers in an order that does not depend on the data, and cannot tell "
                f"which of those of {operator} belong to which row. {_ADVICE}"
            )
        return found.pop()


def find_layouts(run: Callable[[int, int], object], num_particles: int) -> Layouts:
    """Find out where the rows are in the random operators of ``run(number of rows, number of particles)``.

    Raises :class:`~probvae.errors.ArgumentError` where numbers belong to several rows at once.

    >>> found = find_layouts(lambda n, k: torch.randn(k, n, 2), num_particles=3)
    >>> found.layouts[0].results
    (Span(dim=1, outer=1, inner=1),)
    """
    few, more = _calls(run, _FEW, num_particles), _calls(run, _MORE, num_particles)
    drawn = _calls(run, _FEW, num_particles + 1) if num_particles > 1 else few
    is_in_order = len(few) == len(more) == len(drawn)
    if not is_in_order:  # a loop that draws again: its calls are alike
        few, more, drawn = map(_without_repeats, (few, more, drawn))
    if not [call.operator for call in few] == [call.operator for call in more] == [call.operator for call in drawn]:
        raise ArgumentError(
            "distributed: expected the same random operators for all numbers of rows, whose places processes can "
            f"share; this program has others. {_ADVICE}"
        )
    return Layouts([_layout(*calls) for calls in zip(few, more, drawn, strict=True)], is_in_order)


def _calls(run: Callable[[int, int], object], num_rows: int, num_particles: int) -> list[_Call]:
    with _Trial() as trial:
        run(num_rows, num_particles)
    return trial.calls


def _without_repeats(calls: list[_Call]) -> list[_Call]:
    return [call for before, call in zip([None, *calls], calls, strict=False) if call != before]


def _layout(few: _Call, more: _Call, drawn: _Call) -> Layout:
    arguments = tuple(map(_span, few.arguments, more.arguments, drawn.arguments))
    results = tuple(map(_span, few.results, more.results, drawn.results))
    shapes = tuple(None if s is None else _row_shape(s, span) for s, span in zip(few.arguments, arguments, strict=True))
    return Layout(few.operator, arguments, results, shapes)


def _span(few: tuple[int, ...] | None, more: tuple[int, ...] | None, drawn: tuple[int, ...] | None) -> Span | None:
    """The dimension that grows with the rows."""
    if few is None or more is None or drawn is None or few == more:
        return None
    grown = [dim for dim, (one, two) in enumerate(zip(few, more, strict=True)) if one != two]
    dim = grown[0]
    size = few[dim] // _FEW
    if len(grown) > 1 or few[dim] % _FEW or size * _MORE != more[dim]:
        raise ArgumentError(
            "distributed: expected random numbers that belong to one datum each, which processes can share; the shape "
            f"{few} for {_FEW} data becomes {more} for {_MORE}. {_ADVICE}"
        )
    outer = 1
    if len(few) == len(drawn) and few[dim] != drawn[dim]:
        # K particles times the rest became K + 1 times the rest
        outer = few[dim] // (drawn[dim] - few[dim])
    return Span(dim, outer, size // outer)


def _row_shape(shape: tuple[int, ...], span: Span | None) -> tuple[int, ...]:
    return shape if span is None else (*shape[: span.dim], span.outer * span.inner, *shape[span.dim + 1 :])


def _whole(shape: tuple[int, ...] | None, span: Span | None, num_rows: int) -> tuple[int, ...] | None:
    if shape is None or span is None:
        return shape
    return (*shape[: span.dim], shape[span.dim] * num_rows, *shape[span.dim + 1 :])


def _shape_of(argument: Any) -> tuple[int, ...] | None:
    """The shape of a tensor, or that a list of sizes or a number of draws stands for."""
    if isinstance(argument, Tensor):
        return tuple(argument.shape)
    if isinstance(argument, list | tuple) and all(type(size) is int for size in argument):
        return tuple(argument)
    return (argument,) if type(argument) is int else None


class UnionNoise(DispatchMode):
    r"""Inside the block, random operators draw for ``num_data`` rows and hand out the draws of ``rows``.

    A process that works on the rows a to b of a minibatch so gets the random numbers that one process would have drawn
    for them,

    .. math:: \epsilon_{a:b} \quad\text{of}\quad \epsilon = (\epsilon_1, \dots, \epsilon_n),

    and its generator moves on as that of one process would: processes that begin in the same state stay in it.

    ``layouts`` say where the rows are in each operator of the block. Numbers without rows belong to no datum, and are
    the same in all processes. Parameters of a draw are repeated where the rows are those of others.
    Normal, uniform, exponential, Bernoulli and categorical draws are exactly those of one process. A gamma or a
    Dirichlet draw takes as many random numbers as its parameters ask for: equal in distribution only.
    A recorded graph holds the wide draw and the slice, so a traced step keeps all this.

    >>> layouts = find_layouts(lambda n, k: torch.randn(n, 2), num_particles=1)
    >>> own = torch.manual_seed(0) and torch.randn(6, 2)[4:]
    >>> with torch.random.fork_rng(), UnionNoise(6, slice(4, 6), layouts):
    ...     drawn = torch.manual_seed(0) and torch.randn(2, 2)
    >>> torch.equal(drawn, own)
    True
    """

    def __init__(self, num_data: int, rows: slice, layouts: Layouts) -> None:
        super().__init__()
        self._start, self._num_rows, self._num_data = rows.start, rows.stop - rows.start, num_data
        self._layouts, self._number = layouts, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        layout = self._layouts.of(self._number, func, args, self._num_rows)
        self._number += 1
        wide = func(*map(self._widened, args, layout.arguments), **kwargs)
        if is_mutable(func):
            return args[0].copy_(self._own(wide, layout.results[0]))
        if isinstance(wide, tuple):
            return tuple(map(self._own, wide, layout.results))
        return self._own(wide, layout.results[0])

    def _widened(self, argument: Any, span: Span | None) -> Any:
        """For all rows of the minibatch: sizes, or a tensor whose own rows stand in their place."""
        if span is None:
            return argument
        if isinstance(argument, int):
            return span.outer * self._num_data * span.inner
        if not isinstance(argument, Tensor):
            return [*argument[: span.dim], span.outer * self._num_data * span.inner, *argument[span.dim + 1 :]]
        index = torch.arange(self._num_data, device=argument.device) - self._start
        return self._with_rows(argument, span, lambda t, dim: t.index_select(dim, index.clamp(0, self._num_rows - 1)))

    def _own(self, wide: Tensor, span: Span | None) -> Tensor:
        if span is None:
            return wide
        return self._with_rows(wide, span, lambda t, dim: t.narrow(dim, self._start, self._num_rows))

    @staticmethod
    def _with_rows(tensor: Tensor, span: Span, function: Callable[[Tensor, int], Tensor]) -> Tensor:
        """``function`` of the tensor and of the dimension that has its rows and nothing else."""
        if span.outer == span.inner == 1:
            return function(tensor, span.dim)
        apart = tensor.unflatten(span.dim, (span.outer, -1, span.inner))
        return function(apart, span.dim + 1).flatten(span.dim, span.dim + 2)
