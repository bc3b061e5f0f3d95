"""A computation written down operator by operator while it runs once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from probvae.errors import TraceError
from probvae.foundation.operators import DispatchMode

T = TypeVar("T")
_VALUE_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

# The running mean and variance; the schema does not say that they are written
_UNDECLARED_WRITES = {torch.ops.aten.native_batch_norm.default: (3, 4)}

# What these give depends on the shape of their argument alone
_FILLED = {
    *(torch.ops.aten.ones_like.default, torch.ops.aten.zeros_like.default, torch.ops.aten.full_like.default),
    *(torch.ops.aten.new_zeros.default, torch.ops.aten.new_ones.default, torch.ops.aten.new_full.default),
}


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the computation: what stands for it in the next run, and the tensor it was in this one.

    ``moves``: it depends on an input, a held tensor or a random number; what does not is the same in every run.
    """

    tensor: Tensor
    moves: bool

    @property
    def place(self) -> tuple[Any, ...]:
        """Where its numbers lie; two values in the same place are the same."""
        t = self.tensor
        return (self.storage, t.storage_offset(), tuple(t.shape), t.stride(), t.dtype)

    @property
    def storage(self) -> int:
        """The memory that it shares with its views."""
        return storage_of(self.tensor)


@dataclass(frozen=True, eq=False)
class Node:
    """One operator: tensors among ``arguments`` and ``options`` are :class:`Value`.

    ``results`` are its outputs as it gives them; where it gives ``several``, some may be None.
    """

    operator: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    results: tuple[Value | None, ...]
    several: bool

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The tensors that come out."""
        return tuple(value for value in self.results if value is not None)

    def reads(self) -> Iterator[Value]:
        """The values that go in."""
        return values_in((self.arguments, self.options))

    def writes(self) -> set[int]:
        """The memory that the operator changes in place."""
        named = zip(self.operator._schema.arguments, self.arguments, strict=False)
        changed = [value for argument, value in named if _is_written(argument)]
        by_name = {a.name: a for a in self.operator._schema.arguments}
        changed += [value for name, value in self.options.items() if _is_written(by_name[name])]
        changed += [self.arguments[place] for place in _UNDECLARED_WRITES.get(self.operator, ())]
        return {value.storage for value in values_in(changed)}

    @property
    def random(self) -> bool:
        """Whether it draws random numbers."""
        return is_random(self.operator)


@dataclass(frozen=True, eq=False)
class Recording:
    """``nodes`` in their order; ``inputs`` change from run to run, ``held`` are tensors that stay where they are."""

    nodes: list[Node]
    inputs: list[Value]
    held: set[int]
    outputs: list[Value]


def record(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], held: Iterable[Tensor]) -> Recording:
    """Run ``function(*inputs)``, which gives tensors, and write down its operators.

    ``held`` are the tensors whose numbers may change between runs, but not their place: parameters and buffers.
    Raises :class:`~probvae.errors.TraceError` where a number is read, because the next run might go another way.
    """
    recorder = _Recorder(inputs, held)
    with recorder:
        outputs = function(*inputs)
    return recorder.recording(outputs)


class _Recorder(DispatchMode):
    def __init__(self, inputs: Sequence[Tensor], held: Iterable[Tensor]) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.by_identity: dict[int, Value] = {}
        self.by_place: dict[tuple[Any, ...], Value] = {}
        self.held = list(held)  # their memory must live as long as the recorder knows it
        self.held_storages = {storage_of(tensor) for tensor in self.held}
        # memory that an operator has filled with something that moves
        self.moving: set[int] = set(self.held_storages)
        self.made: set[int] = set()
        self.inputs = [self._add(tensor, moves=True) for tensor in inputs]
        self.made |= {value.storage for value in self.inputs}

    def recording(self, outputs: Sequence[Tensor]) -> Recording:
        return Recording(self.nodes, self.inputs, self.held_storages, [self._value(tensor) for tensor in outputs])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.lift_fresh.default:  # a new tensor of given numbers: new in every run
            func = torch.ops.aten.clone.default
        arguments, options = mapped(Tensor, self._value, args), mapped(Tensor, self._value, kwargs)
        moves = self._result_moves(func, arguments, options)
        if moves and _reads_numbers(func, args):
            raise TraceError(
                f"{func}: the program reads the value of a tensor (a condition, .item(), a mask as an index), so its "
                "structure may depend on the data."
            )
        out = func(*args, **kwargs)
        results = tuple(out) if isinstance(out, tuple | list) else (out,)
        if all(result is None or isinstance(result, Tensor) for result in results):
            self._write_down(func, arguments, options, results, isinstance(out, tuple | list))
        elif moves:
            raise TraceError(f"{func}: the program reads a number that may be another one in the next run.")
        return out

    def _write_down(
        self, func: Any, arguments: Any, options: Any, tensors: tuple[Tensor | None, ...], several: bool
    ) -> None:
        before = {value.storage for value in values_in((arguments, options))}
        moves = self._result_moves(func, arguments, options)
        # what is changed in place comes back, at times as another object
        add = self._value if func._schema.is_mutable else lambda tensor: self._add(tensor, moves)
        results = tuple(None if tensor is None else add(tensor) for tensor in tensors)
        node = Node(func, arguments, options, results, several)
        self.made |= {value.storage for value in node.outputs} - before
        self.nodes.append(node)
        if written := node.writes():
            if not written <= self.made | self.held_storages:
                raise TraceError(f"{func}: the program changes a tensor that is neither a parameter nor a buffer.")
            if moves:
                self.moving |= written

    def _result_moves(self, func: Any, arguments: Any, options: Any) -> bool:
        if func in _FILLED:
            return False
        return is_random(func) or any(self._moves(value) for value in values_in((arguments, options)))

    def _moves(self, value: Value) -> bool:
        return value.moves or value.storage in self.moving

    def _value(self, tensor: Tensor) -> Value:
        known = self.by_identity.get(id(tensor))
        if known is None:  # autograd hands a saved tensor back as another object in the same place
            known = self.by_place.get(Value(tensor, False).place)
        return known or self._add(tensor, storage_of(tensor) in self.moving)

    def _add(self, tensor: Tensor, moves: bool) -> Value:
        if known := self.by_identity.get(id(tensor)):
            return known  # in place
        value = Value(tensor, moves)
        self.by_identity[id(tensor)] = value
        self.by_place.setdefault(value.place, value)
        return value


def storage_of(tensor: Tensor) -> int:
    """A number for the memory of ``tensor``, which its views have too."""
    return tensor.untyped_storage()._cdata


def is_random(operator: Any) -> bool:
    """Whether an operator draws random numbers."""
    return torch.Tag.nondeterministic_seeded in operator.tags


def values_in(structure: Any) -> Iterator[Value]:
    """The values within nested arguments."""
    if isinstance(structure, Value):
        yield structure
    elif isinstance(structure, tuple | list):
        for part in structure:
            yield from values_in(part)
    elif isinstance(structure, dict):
        yield from values_in(list(structure.values()))


def mapped(kind: type[T], function: Callable[[T], Any], structure: Any) -> Any:
    """Nested arguments with ``function`` of each part of this ``kind`` in its place."""
    if isinstance(structure, kind):
        return function(structure)
    if isinstance(structure, tuple | list):
        return type(structure)(mapped(kind, function, part) for part in structure)
    if isinstance(structure, dict):
        return {name: mapped(kind, function, part) for name, part in structure.items()}
    return structure


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _reads_numbers(func: Any, args: Any) -> bool:
    if func is torch.ops.aten.index.Tensor:  # its shape depends on numbers for a mask only
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return not _VALUE_TAGS.isdisjoint(func.tags)
