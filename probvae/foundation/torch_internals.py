"""Every private name of torch that the package uses: one function each, and a way round it where torch has it no more.

The names are one release of torch away from another meaning. ``tests/foundation/test_torch_internals.py`` has a test
for each of them that says which one has changed. Other files import from here and touch no private name of torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_FUSED_ADAM = getattr(torch, "_fused_adam_", None)
_ADD_TO_ALL = getattr(torch, "_foreach_add_", None)
_NORMS = getattr(torch, "_foreach_norm", None)
# Places of arguments that an operator changes although its schema does not say so
_UNDECLARED_WRITES = {torch.ops.aten.native_batch_norm.default: (3, 4)}


def has_fused_adam() -> bool:
    """Whether this torch has the kernel that :func:`fused_adam` calls."""
    return _FUSED_ADAM is not None


def fused_adam(
    parameters: list[Tensor],
    gradients: list[Tensor],
    moments: tuple[list[Tensor], list[Tensor]],
    steps: list[Tensor],
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """torch's kernel for one step of Adam, in place: each list has one tensor for each parameter, of its shape.

    ``steps`` are scalars () that count this step already. The public way to the kernel, ``torch.optim.Adam``, imports
    torch's compiler.
    """
    assert _FUSED_ADAM is not None
    options = {"weight_decay": 0.0, "amsgrad": False, "maximize": False}
    _FUSED_ADAM(
        *(parameters, gradients, *moments, [], steps),
        **{"lr": learning_rate, "beta1": betas[0], "beta2": betas[1], "eps": eps, **options},
    )


def add_to_all(tensors: list[Tensor], number: float) -> None:
    """Add ``number`` to every tensor, of any shape, in one call."""
    if _ADD_TO_ALL is not None:
        _ADD_TO_ALL(tensors, number)
        return
    for tensor in tensors:
        tensor.add_(number)


def norms(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The Euclidean norm () of every tensor, of any shape, in one call."""
    if not tensors:
        return ()
    if _NORMS is not None:
        found: Sequence[Tensor] = _NORMS(list(tensors))
        return found
    return [torch.linalg.vector_norm(tensor) for tensor in tensors]


def is_mutable(operator: Any) -> bool:
    """Whether an operator of ``torch.ops`` declares that it writes to an argument."""
    return bool(operator._schema.is_mutable)


def takes_argument(operator: Any, name: str) -> bool:
    """Whether an operator of ``torch.ops`` has an argument of this name."""
    return any(argument.name == name for argument in operator._schema.arguments)


def written_arguments(operator: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
    """The arguments, by position or by name, that an operator of ``torch.ops`` changes in place.

    The running mean and variance of ``native_batch_norm`` are among them, which its schema does not declare.
    """
    schema = operator._schema.arguments
    named = [*zip(schema, arguments, strict=False), *((a, options[a.name]) for a in schema if a.name in options)]
    written = [value for argument, value in named if argument.alias_info is not None and argument.alias_info.is_write]
    return written + [arguments[place] for place in _UNDECLARED_WRITES.get(operator, ())]
