"""A computation written down operator by operator, as a graph of ``torch.fx``, while it runs once.

``make_fx`` of torch does the same for any program; it imports torch's compiler, which takes a third of the time of a
default fit, and traces 15 times as slowly (``docs/compiled.md``).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter, getitem
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from probvae.errors import TraceError
from probvae.foundation.torch_internals import DispatchMode, is_mutable, written_arguments

# storage, offset, shape, strides, dtype
Place = tuple[int, int, tuple[int, ...], tuple[int, ...], torch.dtype]
# An operator in the code that fx writes
_CALL = re.compile(r"torch\.([\w.]+)\(")
_VALUE_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
# The results of these depend on the shape of their argument alone
_FILLED = {
    *(torch.ops.aten.ones_like.default, torch.ops.aten.zeros_like.default, torch.ops.aten.full_like.default),
    *(torch.ops.aten.new_zeros.default, torch.ops.aten.new_ones.default, torch.ops.aten.new_full.default),
}
# Operators whose binding torch.<name> takes the same arguments in the same order, and costs half as much to call
_BINDINGS = {
    *("add", "sub", "mul", "div", "neg", "exp", "log", "sqrt", "rsqrt", "reciprocal", "pow", "square", "abs", "sign"),
    *("tanh", "sigmoid", "log1p", "expm1", "sin", "cos", "mm", "bmm", "addmm", "where", "cat", "stack", "unsqueeze"),
    *("relu", "logsumexp", "lgamma", "digamma", "erf", "isfinite", "isnan", "maximum", "minimum", "sum"),
}


@dataclass(frozen=True, eq=False)
class Trace:
    """A computation as a graph: a node for each operator, and for each tensor that one of several results is.

    The graph's placeholders are first the ``bound`` tensors, which are the same in every run, then the ``inputs``.
    ``held`` is the memory of the tensors whose numbers may change between runs, but not their place. Every node knows
    the tensor that it was in this run (:func:`tensor_of`), and whether it ``moves`` (:func:`moves`).
    """

    graph: Graph
    inputs: list[Node]
    held: set[int]

    @property
    def operators(self) -> list[Node]:
        """The nodes of operators, in their order."""
        return [node for node in self.graph.nodes if node.op == "call_function" and node.target is not getitem]

    @property
    def outputs(self) -> list[Node]:
        """The nodes of the results."""
        return list(self.graph.output_node().args[0])  # type: ignore[arg-type]

    @property
    def bound(self) -> list[Node]:
        """The placeholders of tensors that are the same in every run."""
        return [node for node in self.graph.nodes if node.op == "placeholder" and node not in self.inputs]

    def bind(self, value: Tensor | torch.Generator) -> Node:
        """A new placeholder for a tensor of any shape, or a generator, which is the same in every run."""
        return _bind(self.graph, self.inputs, value, moves=False)

    def function(self) -> Callable[..., Sequence[Tensor]]:
        """A function of the inputs that gives the outputs, without gradients; all other tensors are bound in it.

        Inputs and outputs have the shapes of the run that was written down.
        It is fx's own code for the graph, with the operators bound to short names: looking each of them up in
        ``torch.ops`` takes 6 % of a step of a small model.
        """
        for node in self.operators:
            name = str(node.target).removeprefix("aten.").partition(".")[0]
            if name in _BINDINGS and not node.kwargs:
                node.target = getattr(torch, name, node.target)
            # fx writes arguments as text, and a generator of the program's own has none
            node.kwargs = {k: self.bind(v) if isinstance(v, torch.Generator) else v for k, v in node.kwargs.items()}
        code = self.graph.python_code("self")
        paths = {path: f"f{number}" for number, path in enumerate(dict.fromkeys(_CALL.findall(code.src)))}
        scope = {**code.globals, **{name: attrgetter(path)(torch) for path, name in paths.items()}}
        exec(_CALL.sub(lambda match: f"{paths[match[1]]}(", code.src), scope)
        bound = [node.meta["tensor"] for node in self.bound]
        function: Callable[..., Sequence[Tensor]] = partial(scope["forward"], None, *bound)
        return torch.no_grad()(function)

    def module(self) -> tuple[GraphModule, list[Tensor]]:
        """The graph as a module, and the bound tensors (of any shape), the first arguments of its ``forward``."""
        tensors = [tensor_of(node) for node in self.bound]
        for node in self.graph.nodes:
            node.meta.clear()  # the compiler keeps the nodes, and they would keep their tensors
        return GraphModule(torch.nn.Module(), self.graph), tensors


def record(
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    held: Iterable[Tensor],
    live: Iterable[Tensor] = (),
) -> Trace:
    """Run ``function(*inputs)``, which gives tensors, and write down its operators; the tensors are of any shapes.

    ``held`` are the tensors whose numbers may change between runs, but not their place: parameters and buffers.
    ``live`` are others of which that holds, and which the function itself may not change.
    Raises :class:`~probvae.errors.TraceError` where a number is read, because the next run might go another way.
    """
    recorder = _Recorder(inputs, held, live)
    with recorder:
        outputs = function(*inputs)
    return recorder.trace(outputs)


class _Recorder(DispatchMode):
    def __init__(self, inputs: Sequence[Tensor], held: Iterable[Tensor], live: Iterable[Tensor]) -> None:
        super().__init__()
        self.graph = Graph()
        self.by_identity: dict[int, Node] = {}
        self.by_place: dict[Place, Node] = {}
        self.held, self.live = list(held), list(live)  # their memory must live as long as the recorder knows it
        self.writable = {storage_of(tensor) for tensor in self.held}
        self.held_storages = self.writable | {storage_of(tensor) for tensor in self.live}
        # memory that an operator has filled with something that moves
        self.moving: set[int] = set(self.held_storages)
        self.inputs: list[Node] = []
        for number, tensor in enumerate(inputs):
            self.inputs.append(self._add(self.graph.placeholder(f"x{number}"), tensor, moves=True))
        self.made: set[int] = {storage_of(tensor) for tensor in inputs}

    def trace(self, outputs: Sequence[Tensor]) -> Trace:
        self.graph.output(tuple(self._node(tensor) for tensor in outputs))
        return Trace(self.graph, self.inputs, self.held_storages)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.lift_fresh.default:  # a new tensor of given numbers: new in every run
            func = torch.ops.aten.clone.default
        arguments, options = _with_nodes(args, self._node), _with_nodes(kwargs, self._node)
        does_move = self._result_moves(func, (arguments, options))
        if does_move and _reads_numbers(func, args):
            raise TraceError(
                f"{func}: the program reads the value of a tensor (a condition, .item(), a mask as an index), so its "
                "structure may depend on the data."
            )
        out = func(*args, **kwargs)
        results = out if isinstance(out, tuple | list) else (out,)
        if all(result is None or isinstance(result, Tensor) for result in results):
            self._write_down(func, arguments, options, out)
        elif does_move:
            raise TraceError(f"{func}: the program reads a number that may be another one in the next run.")
        return out

    def _write_down(self, func: Any, arguments: Any, options: Any, out: Any) -> None:
        node = self.graph.call_function(func, arguments, options)
        read = {storage_of(tensor_of(part)) for part in node.all_input_nodes}
        does_move = self._result_moves(func, (arguments, options))
        several = isinstance(out, tuple | list)
        for number, tensor in enumerate(out if several else (out,)):
            # a tensor that is changed in place comes back, at times as another object
            if tensor is None or id(tensor) in self.by_identity or (is_mutable(func) and self._find(tensor)):
                continue
            result = self.graph.call_function(getitem, (node, number)) if several else node
            self._add(result, tensor, does_move)
            self.made |= {storage_of(tensor)} - read
        if written := writes(node):
            if not written <= self.made | self.writable:
                raise TraceError(f"{func}: the program changes a tensor that is neither a parameter nor a buffer.")
            if does_move:
                self.moving |= written

    def _result_moves(self, func: Any, arguments: Any) -> bool:
        if func in _FILLED:
            return False
        return is_random(func) or any(
            moves(node) or storage_of(tensor_of(node)) in self.moving for node in _nodes_in(arguments)
        )

    def _node(self, tensor: Tensor) -> Node:
        if known := self._find(tensor):
            return known
        node = _bind(self.graph, self.inputs, tensor, storage_of(tensor) in self.moving)
        return self._add(node, tensor, moves(node))

    def _find(self, tensor: Tensor) -> Node | None:
        # autograd hands a saved tensor back as another object in the same place
        return self.by_identity.get(id(tensor)) or self.by_place.get(_place(tensor))

    def _add(self, node: Node, tensor: Tensor, moves: bool) -> Node:
        node.meta.update(tensor=tensor, moves=moves)
        self.by_identity[id(tensor)] = node
        self.by_place.setdefault(_place(tensor), node)
        return node


def _bind(graph: Graph, inputs: Sequence[Node], value: Tensor | torch.Generator, moves: bool) -> Node:
    with graph.inserting_before(inputs[0] if inputs else None):
        node = graph.placeholder(f"k{len(graph.nodes)}")
    node.meta.update(tensor=value.detach() if isinstance(value, Tensor) else value, moves=moves)
    return node


def tensor_of(node: Node) -> Tensor:
    """The tensor, of any shape, that a node of a :class:`Trace` was in the run that was written down."""
    tensor: Tensor = node.meta["tensor"]
    return tensor


def moves(node: Node) -> bool:
    """True if a node depends on an input, a held tensor or a random number; all others are the same in every run."""
    return bool(node.meta["moves"])


def results(node: Node) -> list[Node]:
    """The nodes of the tensors that come out of an operator, in the places where they are new."""
    if "tensor" in node.meta:
        return [node]
    return [user for user in node.users if user.target is getitem]


def place(node: Node) -> Place:
    """The place of a node's numbers in memory; two nodes in the same place are the same."""
    return _place(tensor_of(node))


def _place(t: Tensor) -> Place:
    return (storage_of(t), int(t.storage_offset()), tuple(t.shape), t.stride(), t.dtype)


def storage(node: Node) -> int:
    """The memory that a node shares with its views."""
    return storage_of(tensor_of(node))


def storage_of(tensor: Tensor) -> int:
    """A number for the memory of ``tensor``, of any shape, which its views have too, as long as one of them lives."""
    return id(tensor.untyped_storage())


def writes(node: Node) -> set[int]:
    """The memory that the operator of a node changes in place."""
    changed = written_arguments(node.target, node.args, node.kwargs)
    return {storage(part) for part in _nodes_in(changed)}


def is_random(operator: Any) -> bool:
    """True if an operator draws random numbers."""
    return torch.Tag.nondeterministic_seeded in operator.tags


def _nodes_in(structure: Any) -> list[Node]:
    found: list[Node] = []
    map_arg(structure, found.append)
    return found


def _with_nodes(structure: Any, node_of: Callable[[Tensor], Node]) -> Any:
    """Nested arguments with nodes in the places of tensors."""
    if isinstance(structure, Tensor):
        return node_of(structure)
    if isinstance(structure, tuple | list):
        return type(structure)(_with_nodes(part, node_of) for part in structure)
    if isinstance(structure, dict):
        return {name: _with_nodes(part, node_of) for name, part in structure.items()}
    return structure


def _reads_numbers(func: Any, args: Any) -> bool:
    if func is torch.ops.aten.index.Tensor:  # its shape depends on numbers for a mask only
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return not _VALUE_TAGS.isdisjoint(func.tags)
