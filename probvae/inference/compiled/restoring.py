"""Blocks that put tensors, and what programs count, back at their end."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor

from probvae.errors import TraceError
from probvae.inference.compiled.reachable import PLAIN, Point, Reachable


@contextmanager
def restored(tensors: Iterable[Tensor]) -> Iterator[None]:
    """A block that puts ``tensors``, of any shape, back at its end, whatever it changed in place.

    >>> import torch
    >>> x = torch.zeros(2)
    >>> with restored([x]):
    ...     _ = x.add_(1)
    >>> x
    tensor([0., 0.])
    """
    changed = [tensor.detach() for tensor in tensors]
    before = [tensor.clone() for tensor in changed]
    try:
        yield
    finally:
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)


@contextmanager
def programs_restored(programs: Iterable[object]) -> Iterator[None]:
    """A block that runs ``programs`` on trial: numbers in their attributes, and buffers, are put back at its end.

    A program that counts its steps has not counted the trial.

    >>> class Counter:
    ...     steps = 3
    ...
    ...     def program(self):
    ...         self.steps += 1
    >>> counter = Counter()
    >>> counter.program()
    >>> with programs_restored([counter.program]):
    ...     counter.program()
    >>> counter.steps
    4
    """
    try:
        found = Reachable(programs)
    except TraceError:  # more than can be looked at
        yield
        return
    numbers = [point for point in found.points.values() if isinstance(point.value, PLAIN) and not point.is_library]
    with restored({id(buffer): buffer for module in found.modules for buffer in module.buffers()}.values()):
        try:
            yield
        finally:
            for point in numbers:
                _put_back(point)


def _put_back(point: Point) -> None:
    """Only what has changed is written, so that nothing else is touched."""
    if not point.is_attribute:
        if point.owner[point.key] is not point.value:
            point.owner[point.key] = point.value
    elif getattr(point.owner, point.key) is not point.value:
        setattr(point.owner, point.key, point.value)
