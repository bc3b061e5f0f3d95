"""How much work a computation is: counted, so that what depends on it is the same on every machine."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from probvae._dispatch import DispatchMode


def numbers_made(function: Callable[[], object]) -> int:
    """How many numbers all of torch's operations in ``function`` make; no gradient is kept.

    A number takes one to five nanoseconds.

    >>> x = torch.zeros(1000)
    >>> numbers_made(lambda: (x + 1).exp().sum())  # two arrays, and one number
    2001
    """
    count = _Numbers()
    with torch.no_grad(), count:
        function()
    return count.made


class _Numbers(DispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.made += sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result
