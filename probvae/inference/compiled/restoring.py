"""Tensors that get their numbers back."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor


@contextmanager
def restored(tensors: Iterable[Tensor]) -> Iterator[None]:
    """What the block changes in place is put back at its end.

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
