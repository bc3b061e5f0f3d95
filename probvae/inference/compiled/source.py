"""A recorded computation as straight-line Python."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from probvae.inference.compiled.recording import Node, Recording, Value
from probvae.inference.compiled.simplification import constants

# Operators whose binding torch.<name> takes the same arguments in the same order, and costs half as much to call
_BINDINGS = {
    *("add", "sub", "mul", "div", "neg", "exp", "log", "sqrt", "rsqrt", "reciprocal", "pow", "square", "abs", "sign"),
    *("tanh", "sigmoid", "log1p", "expm1", "sin", "cos", "mm", "bmm", "addmm", "where", "cat", "stack", "unsqueeze"),
    *("relu", "logsumexp", "lgamma", "digamma", "erf", "isfinite", "isnan", "maximum", "minimum", "sum"),
}


def as_function(recording: Recording) -> Callable[..., Sequence[Tensor]]:
    """A function of the inputs that gives the outputs; every other tensor is bound in it.

    It must be called without gradients.
    """
    names = {value: f"k{number}" for number, value in enumerate(constants(recording))}
    scope: dict[str, Any] = {name: value.tensor.detach() for value, name in names.items()}
    names |= {value: f"x{number}" for number, value in enumerate(recording.inputs)}
    lines = [f"def run({', '.join(names[value] for value in recording.inputs)}):"]
    last_reads = _last_reads(recording)
    for number, node in enumerate(recording.nodes):
        for value in node.outputs:
            names.setdefault(value, f"v{len(names)}")
        lines.append("    " + _statement(node, number, names, scope))
        if done := [names[value] for value in last_reads.get(number, ())]:
            lines.append(f"    {' = '.join(done)} = None")
    lines.append(f"    return ({''.join(names[value] + ', ' for value in recording.outputs)})")
    exec("\n".join(lines), scope)
    function: Callable[..., Sequence[Tensor]] = scope["run"]
    return function


def _statement(node: Node, number: int, names: dict[Value, str], scope: dict[str, Any]) -> str:
    operator, bound = _operator(node), f"f{number}"
    scope[bound] = operator
    scopes = _Literals(names, scope, number)
    arguments = [scopes(argument) for argument in node.arguments]
    arguments += [f"{name}={scopes(value)}" for name, value in node.options.items()]
    call = f"{bound}({', '.join(arguments)})"
    if set(node.outputs) <= set(node.reads()):
        return call  # in place
    outputs = ", ".join("_" if value is None else names[value] for value in node.results)
    return f"{outputs}{',' * (node.several and len(node.results) == 1)} = {call}"


def _operator(node: Node) -> Any:
    name = node.operator._schema.name.removeprefix("aten::")
    if name in _BINDINGS and not node.options:
        return getattr(torch, name)
    return node.operator


class _Literals:
    """Arguments as Python text; what has none is bound in ``scope``."""

    def __init__(self, names: dict[Value, str], scope: dict[str, Any], number: int) -> None:
        self.names, self.scope, self.number = names, scope, number

    def __call__(self, argument: Any) -> str:
        if isinstance(argument, Value):
            return self.names[argument]
        if isinstance(argument, tuple | list):
            parts = ", ".join(self(part) for part in argument)
            return f"[{parts}]"
        if argument is None or type(argument) in (bool, int, str):
            return repr(argument)
        name = f"c{self.number}_{len(self.scope)}"
        self.scope[name] = argument
        return name


def _last_reads(recording: Recording) -> dict[int, list[Value]]:
    """The values that are read for the last time by each node: their memory is free from there on."""
    kept = set(recording.outputs) | set(recording.inputs) | set(constants(recording))
    last = {value: number for number, node in enumerate(recording.nodes) for value in (*node.outputs, *node.reads())}
    done: dict[int, list[Value]] = {}
    for value, number in last.items():
        if value not in kept:
            done.setdefault(number, []).append(value)
    return done
