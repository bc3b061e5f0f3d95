"""Random numbers of a whole minibatch, of which each process of a distributed fit keeps its own rows'."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from probvae.foundation.operators import DispatchMode


class UnionNoise(DispatchMode):
    r"""Inside the block, random operators draw for ``num_data`` rows and hand out those in ``rows``.

    A process that works on the rows a to b of a minibatch so gets the random numbers that one process would have drawn
    for them,

    .. math:: \epsilon_{a:b} \quad\text{of}\quad \epsilon = (\epsilon_1, \dots, \epsilon_n),

    and its generator moves on as that of one process would: processes that begin in the same state stay in it.

    An operator's rows are its first dimension of the size b - a. Numbers without such a dimension belong to no datum,
    and are the same in all processes. Parameters of a draw are repeated where the rows are those of others.
    Normal, uniform, exponential, Bernoulli and categorical draws are exactly those of one process. A gamma or a
    Dirichlet draw takes as many random numbers as its parameters ask for: equal in distribution only.
    Under ``make_fx`` the graph holds the wide draw and the slice, so a traced step keeps all this.

    >>> own = torch.manual_seed(0) and torch.randn(6, 2)[4:]
    >>> with torch.random.fork_rng(), UnionNoise(6, slice(4, 6)):
    ...     drawn = torch.manual_seed(0) and torch.randn(2, 2)
    >>> torch.equal(drawn, own)
    True
    """

    def __init__(self, num_data: int, rows: slice) -> None:
        super().__init__()
        self._start, self._num_rows, self._num_data = rows.start, rows.stop - rows.start, num_data

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if func.overloadpacket is torch.ops.aten.multinomial:
            return self._multinomial(func, args, kwargs)
        dim = self._row_dim(args)
        return func(*args, **kwargs) if dim is None else self._draw(func, dim, args, kwargs)

    def _draw(self, func: Any, dim: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        wide = func(*(self._widened(argument, dim) for argument in args), **kwargs)
        if func._schema.is_mutable:
            return args[0].copy_(self._own(wide, dim))
        return tuple(self._own(each, dim) for each in wide) if isinstance(wide, tuple) else self._own(wide, dim)

    def _multinomial(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Its rows are draws times data, in one dimension."""
        weights, *others = args
        if weights.dim() == 1 or len(weights) % self._num_rows:
            return func(*args, **kwargs)
        wide = self._widened(weights.unflatten(0, (-1, self._num_rows)), 1)
        drawn = func(wide.flatten(0, 1), *others, **kwargs)
        return self._own(drawn.unflatten(0, (-1, self._num_data)), 1).flatten(0, 1)

    def _row_dim(self, args: Sequence[Any]) -> int | None:
        for argument in args:
            shape = list(argument.shape) if isinstance(argument, Tensor) else argument
            if isinstance(shape, list | tuple) and self._num_rows in shape:
                return shape.index(self._num_rows)
        return None

    def _widened(self, argument: Any, dim: int) -> Any:
        """For all rows of the minibatch: a size, or a tensor whose own rows stand in their place."""
        if isinstance(argument, list | tuple):
            return [*argument[:dim], self._num_data, *argument[dim + 1 :]]
        if not isinstance(argument, Tensor) or argument.dim() <= dim or argument.shape[dim] != self._num_rows:
            return argument
        index = torch.arange(self._num_data, device=argument.device) - self._start
        return argument.index_select(dim, index.clamp(0, self._num_rows - 1))

    def _own(self, wide: Tensor, dim: int) -> Tensor:
        return wide.narrow(dim, self._start, self._num_rows)
