"""The same computation with fewer operators: passes over a graph of ``torch.fx`` that know what is changed in place."""

from operator import getitem
from typing import Any

import torch
from torch.fx import Node

from probvae.inference.compiled.recording import (
    Place,
    Trace,
    is_random,
    moves,
    place,
    results,
    storage,
    tensor_of,
    writes,
)

_ATEN = torch.ops.aten
# op(a, number) = a, exactly
_NEUTRAL: dict[Any, float] = {
    _ATEN.mul.Tensor: 1,
    _ATEN.mul.Scalar: 1,
    _ATEN.div.Tensor: 1,
    _ATEN.div.Scalar: 1,
    _ATEN.add.Tensor: 0,
    _ATEN.sub.Tensor: 0,
    _ATEN.pow.Tensor_Scalar: 1,
}


def simplify(trace: Trace, keep_views: bool = True) -> Trace:
    """Take views once, keep what never moves, compute nothing twice, and drop what nobody reads; the trace itself.

    With ``keep_views`` the views of held tensors are taken now, and not in every run.
    Random operators stay, read or not: the stream of random numbers is the program's own.
    """
    simplifier = _Simplifier(trace, keep_views)
    for node in trace.operators:
        simplifier.visit(node)
    drop_dead_nodes(trace)
    return trace


class _Simplifier:
    def __init__(self, trace: Trace, keep_views: bool) -> None:
        self.trace, self.keep_views = trace, keep_views
        self.changed: set[int] = set().union(*map(writes, trace.operators))
        self.places: dict[Place, Node] = {place(node): node for node in trace.inputs}
        self.computed: dict[Any, Node] = {}

    def visit(self, node: Node) -> None:
        """Let the users of the node's results use something cheaper, where there is something."""
        found = results(node)
        if writes(node):
            return
        read = {storage(part) for part in node.all_input_nodes}
        if not is_random(node.target) and all(storage(result) in read for result in found):
            for result in found:
                self._view(result)
            return
        # views of views of a result may turn out to be the result
        self.places.update({place(result): result for result in found})
        if is_random(node.target) or any(storage(result) in self.changed for result in found):
            return
        if not any(moves(result) for result in found):
            for result in found:
                self._bind(result)
        elif found == [node] and (instead := self._neutral(node) or self._computed_before(node)):
            node.replace_all_uses_with(instead)

    def _view(self, result: Node) -> None:
        """A view that there is already, or one of memory that stays where it is."""
        if self._stays(result):
            self._bind(result)
        elif (known := self.places.setdefault(place(result), result)) is not result:
            result.replace_all_uses_with(known)

    def _stays(self, view: Node) -> bool:
        if storage(view) in self.trace.held:
            return self.keep_views
        return not (moves(view) or storage(view) in self.changed)

    def _bind(self, result: Node) -> None:
        result.replace_all_uses_with(self.trace.bind(tensor_of(result)))

    def _neutral(self, node: Node) -> Node | None:
        if node.target not in _NEUTRAL or len(node.args) != 2 or node.kwargs:
            return None
        first, number = node.args
        if isinstance(number, Node) or number != _NEUTRAL[node.target] or not isinstance(first, Node):
            return None
        return first if storage(first) not in self.changed | self.trace.held and _form(first) == _form(node) else None

    def _computed_before(self, node: Node) -> Node | None:
        if any(storage(part) in self.changed for part in node.all_input_nodes):
            return None
        key = (node.target, _hashable(node.args), _hashable(tuple(sorted(node.kwargs.items()))))
        known = self.computed.setdefault(key, node)
        return None if known is node else known


def drop_dead_nodes(trace: Trace) -> None:
    """Keep only the nodes on which outputs, held tensors or the stream of random numbers depend.

    ``Graph.eliminate_dead_code`` of fx would keep all that is written in place, or none of it.
    """
    memory = set(trace.held)
    for node in reversed(trace.graph.nodes):
        if node.op == "output" or node in trace.inputs or node.users:
            needed = True
        elif node.op == "placeholder" or node.target is getitem:
            needed = False
        else:
            needed = is_random(node.target) or not memory.isdisjoint(writes(node))
        if needed:
            memory |= {storage(part) for part in node.all_input_nodes if "tensor" in part.meta}
        else:
            trace.graph.erase_node(node)


def _form(node: Node) -> tuple[Any, ...]:
    tensor = tensor_of(node)
    return (tensor.shape, tensor.stride(), tensor.dtype)


def _hashable(structure: Any) -> Any:
    if isinstance(structure, tuple | list):
        return tuple(_hashable(part) for part in structure)
    # 1, 1.0 and True are equal, and not the same
    return structure if isinstance(structure, Node) else (type(structure), structure)
