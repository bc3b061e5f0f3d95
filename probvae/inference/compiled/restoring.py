"""A block that puts tensors back at its end."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor


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
