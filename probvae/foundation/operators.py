"""Blocks that watch torch's operators, and count or bound their work, their memory and their allocations."""

import gc
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probvae.errors import RunError
from probvae.foundation.torch_internals import (
    DispatchMode,
    is_mutable,
    takes_argument,
    tree_leaves,
    tree_map_only,
)


class BoundedAllocation(DispatchMode):
    """Inside the block all operations together may make ``most_numbers``, and there may be ``most_steps`` of them.

    Sizes are found on torch's meta device before anything is allocated. Raises
    :class:`~probvae.errors.RunError`, before the memory is asked for.

    >>> with BoundedAllocation(most_numbers=100, most_steps=10):
    ...     torch.zeros(10**12)
    Traceback (most recent call last):
    probvae.errors.RunError: expected at most 100 numbers, as the weights are few, got a description of more
    """

    def __init__(self, most_numbers: int, most_steps: int) -> None:
        super().__init__()
        self._numbers, self._steps = most_numbers, most_steps
        self._limits = most_numbers, most_steps
        self._sizes: dict[Any, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        self._steps -= 1
        self._numbers -= self._size_of_result(func, args, kwargs)
        if self._numbers < 0 or self._steps < 0:
            what, limit = ("numbers", self._limits[0]) if self._numbers < 0 else ("steps", self._limits[1])
            raise RunError(f"expected at most {limit} {what}, as the weights are few, got a description of more")
        return func(*args, **kwargs)

    def _size_of_result(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
        """Known for what was done before with tensors of the same sizes: the thousandth layer is like the first."""
        key = func, _form(args), _form(kwargs)
        if key not in self._sizes:
            self._sizes[key] = _size_of_result(func, args, kwargs)
        return self._sizes[key]


def _form(value: Any) -> Any:
    """All parts of an argument that the size of a result depends on."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, Mapping):
        return tuple((name, _form(part)) for name, part in value.items())
    return tuple(map(_form, value)) if isinstance(value, list | tuple) else value


def _size_of_result(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """How many numbers ``func`` would make; 0 where that depends on values, which are in memory then."""
    if is_mutable(func):
        return 0
    if torch.Tag.pointwise in func.tags:  # on the meta device some of these import torch's compiler
        return _size_together(leaf.shape for leaf in tree_leaves((tuple(args), kwargs)) if isinstance(leaf, Tensor))
    args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (tuple(args), kwargs))
    if "device" in kwargs or takes_argument(func, "device"):
        kwargs["device"] = torch.device("meta")
    try:
        result = func(*args, **kwargs)
    except (RuntimeError, NotImplementedError, ValueError):
        return 0  # `func` itself is about to say what is wrong
    return sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


def _size_together(shapes: Iterable[Sequence[int]]) -> int:
    """How many numbers there are where these shapes are broadcast; 0 where they cannot be."""
    try:
        return math.prod(np.broadcast_shapes(*shapes))
    except ValueError:
        return 0


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


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes that tensors made by ``function`` held at once, results included; no gradient is kept.

    Python's collector of reference cycles pauses: the count must not depend on when it runs.

    >>> x = torch.zeros(1000)
    >>> peak_bytes(lambda: (x + 1).exp().sum())  # two arrays of 4000 bytes, and before they go, nothing else
    8000
    """
    count, collects = _LiveStorages(), gc.isenabled()
    gc.disable()
    try:
        with torch.no_grad(), count:
            function()
    finally:
        if collects:
            gc.enable()
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
