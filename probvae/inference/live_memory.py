"""How much memory a computation holds at its peak: counted, not guessed from the sizes of its layers."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from probvae._dispatch import DispatchMode


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes that tensors made by ``function`` held at once, results included; no gradient is kept.

    >>> x = torch.zeros(1000)
    >>> peak_bytes(lambda: (x + 1).exp().sum())  # two arrays of 4000 bytes, and before they go, nothing else
    8000
    """
    count = _LiveStorages()
    with torch.no_grad(), count:
        function()
    return count.peak


class _LiveStorages(DispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def gone(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
