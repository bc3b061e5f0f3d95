"""The faster of PyTorch's two matrix products on a CPU, where it keeps the precision of float32.

PyTorch leaves products in float32 to its BLAS library, which on AMD processors takes up to half as long again as
oneDNN. Evaluation goes through the block :func:`fast_products`; a traced step has the operator of
:func:`product_operator` in the place of its large products. Which product is taken depends on the sizes and on
:func:`keeps_float32`, never on a clock.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from probvae.foundation.torch_internals import has_onednn_linear, onednn_linear

# Multiplications below which the way to either product costs more than the product
_LEAST_MULTIPLICATIONS = 2**22
# The allowed error in units of float32's rounding of a sum of k products; bfloat16's rounding is 2^16 such units
_ALLOWED_ROUNDING = 4.0


@contextmanager
def fast_products() -> Iterator[None]:
    """Inside the block, and without gradients, large affine layers in float32 on a CPU go through oneDNN.

    Both products are float32 throughout and differ by its rounding.

    >>> x, layer = torch.randn(2000, 50), torch.nn.Linear(50, 60)
    >>> with torch.no_grad(), fast_products():
    ...     y = layer(x)
    >>> torch.allclose(y, layer(x), atol=1e-5)
    True
    """
    if not has_onednn_linear():
        yield
        return
    with _Products():
        yield


class _Products(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.linear and len(args) == 3 and not kwargs and _is_large_layer(*args):
            return onednn_linear(*args)
        return func(*args, **(kwargs or {}))


def _is_large_layer(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    tensors = (x, weight) if bias is None else (x, weight, bias)
    is_plain = not torch.is_grad_enabled() and x.is_contiguous() and _are_float32_on_cpu(tensors)
    return is_plain and x.numel() * len(weight) >= _LEAST_MULTIPLICATIONS


@cache
def product_operator() -> Any:
    """The operator ``probvae::product(a, b, c)``, a b + c: a (n, k), b (k, m), c (m,) or None, result (n, m).

    torch's compiler asks for a constant b where oneDNN's own operator stands, and not where this one does. The operator
    is defined at the first call: a module that is loaded twice defines it once.
    """
    if not hasattr(torch.ops.probvae, "product"):
        torch.library.define("probvae::product", "(Tensor a, Tensor b, Tensor? c) -> Tensor")
        torch.library.impl("probvae::product", "CPU", product_by_onednn)
        torch.library.impl("probvae::product", "Meta", lambda a, b, c: a.new_empty(len(a), b.shape[1]))
    return torch.ops.probvae.product.default


def product_by_onednn(a: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
    """a b + c by oneDNN: a (n, k), b (k, m), c (m,) or None, result (n, m)."""
    return onednn_linear(a, b.t(), c)


def is_faster_product(a: Tensor, b: Tensor, c: Sequence[Tensor] = ()) -> bool:
    """True if a (n, k) times b (k, m), plus the one tensor of ``c`` if there is one, goes to :func:`product_operator`.

    The tensors must be float32 on a CPU, the addend a vector (m,), and the product large and trusted.
    """
    sizes = (*a.shape, b.shape[1])
    has_vector = all(tensor.shape == sizes[2:] for tensor in c)
    is_large = sizes[0] * sizes[1] * sizes[2] >= _LEAST_MULTIPLICATIONS
    return _are_float32_on_cpu((a, b, *c)) and has_vector and is_large and _is_trusted(*sizes)


def _are_float32_on_cpu(tensors: Sequence[Tensor]) -> bool:
    return all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors)


@cache
def _is_trusted(n: int, k: int, m: int) -> bool:
    return keeps_float32(product_by_onednn, n, k, m)


def keeps_float32(product: Callable[[Tensor, Tensor, Tensor | None], Tensor], n: int, k: int, m: int) -> bool:
    r"""True if ``product`` of random matrices (n, k) and (k, m) has no larger error than float32 arithmetic.

    The root mean square of the error against float64, relative to that of the product, must be below
    :math:`4 \sqrt{k}\, 2^{-24}`: rounding each of k terms gives no more than a quarter of that.

    >>> keeps_float32(lambda a, b, c: a @ b, 8, 100, 8)
    True
    >>> keeps_float32(lambda a, b, c: (a.bfloat16() @ b.bfloat16()).float(), 8, 100, 8)
    False
    """
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(n, k, generator=generator), torch.randn(k, m, generator=generator)
    exact = a.double() @ b.double()
    error = (product(a, b, None) - exact).norm() / exact.norm()
    return bool(error < _ALLOWED_ROUNDING * k**0.5 * 2**-24)
