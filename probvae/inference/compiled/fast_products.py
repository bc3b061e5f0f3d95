"""The large matrix products of a traced computation by the faster of PyTorch's two routes."""

import torch
from torch.fx import Node

from probvae.foundation.onednn import is_faster_product, product_operator
from probvae.foundation.torch_internals import has_onednn_linear
from probvae.inference.compiled.recording import Trace, tensor_of

_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)


def use_fast_products(trace: Trace) -> Trace:
    """Let oneDNN take the large products in float32 on a CPU, where it keeps float32's precision; the trace itself."""
    if has_onednn_linear():
        for node in trace.operators:
            if node.target in _PRODUCTS and not node.kwargs:
                _replace_product(trace, node)
    return trace


def _replace_product(trace: Trace, node: Node) -> None:
    *c, a, b = (part for part in node.args if isinstance(part, Node))
    if not is_faster_product(tensor_of(a), tensor_of(b), [tensor_of(part) for part in c]):
        return
    if not tensor_of(a).is_contiguous():  # its rows are laid one after the other first
        with trace.graph.inserting_before(node):
            copy = trace.graph.call_function(
                torch.ops.aten.clone.default, (a,), {"memory_format": torch.contiguous_format}
            )
        copy.meta.update(tensor=tensor_of(a).contiguous(), moves=True)
        a = copy
    node.target, node.args = product_operator(), (a, b, c[0] if c else None)
