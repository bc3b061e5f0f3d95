"""The large matrix products of a recorded computation by the faster of PyTorch's two routes."""

import torch

from probvae.foundation.onednn import is_faster_product, onednn_is_there, product_operator
from probvae.inference.compiled.recording import Node, Recording, Value

_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)


def with_fast_products(recording: Recording) -> Recording:
    """The same computation, its large products in float32 on a CPU by oneDNN where that keeps float32's precision."""
    if not onednn_is_there():
        return recording
    nodes = [new for node in recording.nodes for new in (_by_the_fast_route(node) if _fits(node) else [node])]
    return Recording(nodes, recording.inputs, recording.held, recording.outputs)


def _fits(node: Node) -> bool:
    if node.operator not in _PRODUCTS or node.options:
        return False
    *c, a, b = (value.tensor for value in node.reads())
    return is_faster_product(a, b, c)


def _by_the_fast_route(node: Node) -> list[Node]:
    """The product, and before it what lays the rows of its first factor one after the other."""
    *c, a, b = node.arguments
    before: list[Node] = []
    if not a.tensor.is_contiguous():
        before, a = _laid_out(a)
    return [*before, Node(product_operator(), (a, b, *(c or [None])), {}, node.results, False)]


def _laid_out(value: Value) -> tuple[list[Node], Value]:
    copy = Value(value.tensor.contiguous(), value.moves)
    options = {"memory_format": torch.contiguous_format}
    return [Node(torch.ops.aten.clone.default, (value,), options, (copy,), False)], copy
