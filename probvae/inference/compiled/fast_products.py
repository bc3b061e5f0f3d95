"""The large matrix products of a recorded computation by the faster of PyTorch's two routes."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from probvae.foundation.onednn import LEAST_MULTIPLICATIONS, onednn_is_there
from probvae.inference.compiled.recording import Node, Recording, Value

# A product a b + c, whose operator does not ask inductor for a constant b as oneDNN's own does there
_LIBRARY = torch.library.Library("probvae", "DEF")
_LIBRARY.define("product(Tensor a, Tensor b, Tensor? c) -> Tensor")
_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
# In units of float32's rounding of a sum of k products; bfloat16's is 2^16 of them
_ALLOWED_ROUNDING = 4.0


def _by_onednn(a: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(a, b.t(), c, "none", [], "")


_LIBRARY.impl("product", _by_onednn, "CPU")
_LIBRARY.impl("product", lambda a, b, c: a.new_empty(len(a), b.shape[1]), "Meta")


def with_fast_products(recording: Recording) -> Recording:
    """The same computation, its large products in float32 on a CPU by oneDNN where that keeps float32's precision.

    PyTorch leaves them to its BLAS library, which takes up to half as long again on AMD processors. What is chosen
    depends on the sizes and on :func:`keeps_float32`, never on a clock.
    """
    if not onednn_is_there():
        return recording
    nodes = [new for node in recording.nodes for new in (_by_the_fast_route(node) if _fits(node) else [node])]
    return Recording(nodes, recording.inputs, recording.held, recording.outputs)


def keeps_float32(product: Callable[[Tensor, Tensor, Tensor | None], Tensor], n: int, k: int, m: int) -> bool:
    r"""Whether ``product`` of random matrices (n, k) and (k, m) has no larger error than float32 arithmetic.

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


@cache
def _is_trusted(n: int, k: int, m: int) -> bool:
    return keeps_float32(_by_onednn, n, k, m)


def _fits(node: Node) -> bool:
    if node.operator not in _PRODUCTS or node.options:
        return False
    tensors = [value.tensor for value in node.reads()]
    a, b = tensors[-2:]
    plain = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
    sizes = (*a.shape, b.shape[1])
    vector = len(tensors) == 2 or tensors[0].shape == sizes[2:]
    return plain and vector and sizes[0] * sizes[1] * sizes[2] >= LEAST_MULTIPLICATIONS and _is_trusted(*sizes)


def _by_the_fast_route(node: Node) -> list[Node]:
    """The product, and before it what lays the rows of its first factor one after the other."""
    *c, a, b = node.arguments
    before: list[Node] = []
    if not a.tensor.is_contiguous():
        before, a = _laid_out(a)
    product: Any = torch.ops.probvae.product.default
    return [*before, Node(product, (a, b, *(c or [None])), {}, node.results, False)]


def _laid_out(value: Value) -> tuple[list[Node], Value]:
    copy = Value(value.tensor.contiguous(), value.moves)
    options = {"memory_format": torch.contiguous_format}
    return [Node(torch.ops.aten.clone.default, (value,), options, (copy,), False)], copy
