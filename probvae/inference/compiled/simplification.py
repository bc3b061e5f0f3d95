"""The same computation with fewer operators."""

from collections.abc import Iterable
from typing import Any

import torch

from probvae.inference.compiled.recording import Node, Recording, Value, mapped

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


def simplified(recording: Recording, keep_views: bool = True) -> Recording:
    """What is left when views are taken once, what never moves is kept, and what nobody reads is dropped.

    With ``keep_views`` the views of held tensors are taken now, and not in every run.
    Random operators stay, read or not: the stream of random numbers is the program's own.
    """
    return without_dead_nodes(_Simplifier(recording, keep_views).run())


class _Simplifier:
    def __init__(self, recording: Recording, keep_views: bool) -> None:
        self.recording, self.keep_views = recording, keep_views
        self.changed: set[int] = set().union(*(node.writes() for node in recording.nodes))
        self.instead: dict[Value, Value] = {}
        self.places = {value.place: value for value in recording.inputs}
        self.computed: dict[Any, Value] = {}

    def run(self) -> Recording:
        nodes = [node for node in map(self._renamed, self.recording.nodes) if not self._needless(node)]
        outputs = [self._now(value) for value in self.recording.outputs]
        return Recording(nodes, self.recording.inputs, self.recording.held, outputs)

    def _now(self, value: Value) -> Value:
        return self.instead.get(value, value)

    def _renamed(self, node: Node) -> Node:
        arguments, options = (mapped(Value, self._now, part) for part in (node.arguments, node.options))
        return Node(node.operator, arguments, options, node.results, node.several)

    def _needless(self, node: Node) -> bool:
        if node.random or node.writes():
            return self._kept(node) if node.random and not node.writes() else False
        reads = {value.storage for value in node.reads()}
        if all(value.storage in reads for value in node.outputs):
            return self._needless_view(node)
        if any(value.storage in self.changed for value in node.outputs):
            return self._kept(node)
        if not any(value.moves or value.storage in self.changed for value in node.outputs):
            return True  # its outputs are constants, kept from this run
        return self._neutral(node) or self._computed_before(node) or self._kept(node)

    def _kept(self, node: Node) -> bool:
        """It computes: views of views of its outputs may turn out to be the outputs."""
        self.places.update({value.place: value for value in node.outputs})
        return False

    def _needless_view(self, node: Node) -> bool:
        """A view that there is already, or one of memory that stays where it is."""
        if all(self._stays(value) for value in node.outputs):
            return True
        known = [self.places.setdefault(value.place, value) for value in node.outputs]
        if all(one is two for one, two in zip(known, node.outputs, strict=True)):
            return False
        if len(known) == 1:
            self.instead[node.outputs[0]] = known[0]
            return True
        return False

    def _stays(self, value: Value) -> bool:
        if value.storage in self.recording.held:
            return self.keep_views
        return not (value.moves or value.storage in self.changed)

    def _neutral(self, node: Node) -> bool:
        if node.operator not in _NEUTRAL or len(node.arguments) != 2 or node.options:
            return False
        first, number = node.arguments
        if isinstance(number, Value) or number != _NEUTRAL[node.operator]:
            return False
        out = node.outputs[0]
        if first.storage in self.changed | self.recording.held or _form(first) != _form(out):
            return False
        self.instead[out] = first
        return True

    def _computed_before(self, node: Node) -> bool:
        if any(value.storage in self.changed for value in node.reads()):
            return False
        key = (node.operator, _hashable(node.arguments), _hashable(tuple(sorted(node.options.items()))))
        known = self.computed.setdefault(key, node.outputs[0]) if not node.several else node.outputs[0]
        if known is node.outputs[0]:
            return False
        self.instead[node.outputs[0]] = known
        return True


def without_dead_nodes(recording: Recording) -> Recording:
    """Only the nodes on which the outputs, the held tensors or the stream of random numbers depend."""
    live = set(recording.outputs)
    memory = {value.storage for value in live} | recording.held
    kept = []
    for node in reversed(recording.nodes):
        if node.random or not live.isdisjoint(node.outputs) or not memory.isdisjoint(node.writes()):
            kept.append(node)
            live |= set(node.reads())
            memory |= {value.storage for value in node.reads()}
    return Recording(kept[::-1], recording.inputs, recording.held, recording.outputs)


def constants(recording: Recording) -> Iterable[Value]:
    """What is read and no node makes: tensors that are kept as they are."""
    made = set(recording.inputs).union(*(set(node.outputs) - set(node.reads()) for node in recording.nodes))
    read = [value for node in recording.nodes for value in node.reads()] + recording.outputs
    return dict.fromkeys(value for value in read if value not in made)


def _form(value: Value) -> tuple[Any, ...]:
    return (value.tensor.shape, value.tensor.stride(), value.tensor.dtype)


def _hashable(structure: Any) -> Any:
    if isinstance(structure, tuple | list):
        return tuple(_hashable(part) for part in structure)
    # 1, 1.0 and True are equal, and not the same
    return structure if isinstance(structure, Value) else (type(structure), structure)
