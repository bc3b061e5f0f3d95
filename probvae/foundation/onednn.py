"""The faster of PyTorch's two matrix products on a CPU, for evaluation."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Multiplications below which the way to either product costs more than the product
LEAST_MULTIPLICATIONS = 2**22


@contextmanager
def fast_products() -> Iterator[None]:
    """Inside the block, and without gradients, large affine layers in float32 on a CPU go through oneDNN.

    PyTorch leaves them to its BLAS library, which on AMD processors is up to half as fast. Both are float32 throughout
    and differ by its rounding. The choice depends on the sizes, never on a clock.

    >>> x, layer = torch.randn(2000, 50), torch.nn.Linear(50, 60)
    >>> with torch.no_grad(), fast_products():
    ...     y = layer(x)
    >>> torch.allclose(y, layer(x), atol=1e-5)
    True
    """
    if not onednn_is_there():
        yield
        return
    with _Products():
        yield


def onednn_is_there() -> bool:
    """Whether this PyTorch has oneDNN's affine layer."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _Products(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.linear and len(args) == 3 and not kwargs and _fits(*args):
            return torch.ops.mkldnn._linear_pointwise(*args, "none", [], "")
        return func(*args, **(kwargs or {}))


def _fits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    plain = all(t is None or (t.dtype == torch.float32 and t.device.type == "cpu") for t in (x, weight, bias))
    return (
        plain and not torch.is_grad_enabled() and x.is_contiguous() and x.numel() * len(weight) >= LEAST_MULTIPLICATIONS
    )
