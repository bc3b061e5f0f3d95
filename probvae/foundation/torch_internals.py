"""Every private name of torch that the package uses: one function each, and a way round it where torch has it no more.

The names are one release of torch away from another meaning. ``tests/foundation/test_torch_internals.py`` has a test
for each of them that says which one has changed. Other files import from here and touch no private name of torch.
"""

import getpass
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform
from torch.distributions.transforms import _InverseTransform
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map_only as tree_map_only

D = TypeVar("D", bound=Distribution)
M = TypeVar("M", bound=nn.Module)

_VERSION = attrgetter("_version")
_FUSED_ADAM = getattr(torch, "_fused_adam_", None)
_ADD_TO_ALL = getattr(torch, "_foreach_add_", None)
_NORMS = getattr(torch, "_foreach_norm", None)
# Places of arguments that an operator changes although its schema does not say so
_UNDECLARED_WRITES = {torch.ops.aten.native_batch_norm.default: (3, 4)}


def has_fused_adam() -> bool:
    """True if this torch has the kernel that :func:`fused_adam` calls."""
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
    """True if an operator of ``torch.ops`` declares that it writes to an argument."""
    return bool(operator._schema.is_mutable)


def takes_argument(operator: Any, name: str) -> bool:
    """True if an operator of ``torch.ops`` has an argument of this name."""
    return any(argument.name == name for argument in operator._schema.arguments)


def written_arguments(operator: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
    """The arguments, by position or by name, that an operator of ``torch.ops`` changes in place.

    The running mean and variance of ``native_batch_norm`` are among them, which its schema does not declare.
    """
    schema = operator._schema.arguments
    named = [*zip(schema, arguments, strict=False), *((a, options[a.name]) for a in schema if a.name in options)]
    written = [value for argument, value in named if argument.alias_info is not None and argument.alias_info.is_write]
    return written + [arguments[place] for place in _UNDECLARED_WRITES.get(operator, ())]


class DispatchMode(TorchDispatchMode):
    """torch's own, without its guard against its compiler, which imports that, for longer than a short fit takes.

    >>> import torch
    >>> class Count(DispatchMode):
    ...     number = 0
    ...
    ...     def __torch_dispatch__(self, func, types, args=(), kwargs=None):
    ...         self.number += 1
    ...         return func(*args, **(kwargs or {}))
    >>> with Count() as count:
    ...     x = torch.ones(3) + 1
    >>> count.number
    2
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def has_onednn_linear() -> bool:
    """True if this torch has the operator that :func:`onednn_linear` calls."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """oneDNN's affine layer x W^T + b: ``x`` (..., k), ``weight`` (m, k), ``bias`` (m,) or None, result (..., m)."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def inductor_compile(module: torch.fx.GraphModule, inputs: Sequence[Tensor], wanted: Mapping[str, Any]) -> Any:
    """The graph as compiled code for ``inputs`` of these shapes; ``wanted`` are options, where this torch knows them.

    ``torch.compile``, the public way, would trace the graph again and check its inputs at every call.
    """
    from torch import _inductor

    options = {name: value for name, value in wanted.items() if hasattr(_inductor.config, name)}
    return _inductor.compile(module, list(inputs), options)


def default_compiler_cache() -> Path:
    """The folder that inductor builds in where ``TORCHINDUCTOR_CACHE_DIR`` is not set."""
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    except ImportError:
        return Path(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}")
    return Path(default_cache_dir())


@contextmanager
def headers_in(folder: Path) -> Iterator[None]:
    """Inside the block inductor precompiles headers in ``folder``; it has one such folder for all of its caches."""
    from torch._inductor import codecache

    wanted = {"_HEADER_DIR": str(folder), "_HEADER_LOCK_DIR": str(folder / "locks")}
    before = {name: getattr(codecache, name) for name in wanted if hasattr(codecache, name)}
    for name in before:
        setattr(codecache, name, wanted[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(codecache, name, value)


@contextmanager
def validation_kept(inside: bool | None = None) -> Iterator[None]:
    """A block after which torch validates the arguments of distributions as before; ``inside`` is the default in it."""
    before = getattr(Distribution, "_validate_args", __debug__)
    if inside is not None:
        Distribution.set_default_validate_args(inside)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def validates(distribution: Distribution) -> bool:
    """True if a distribution checks the values whose density it is asked for."""
    return bool(getattr(distribution, "_validate_args", False))


def check_value(distribution: Distribution, value: Tensor, is_wanted: bool | None = None) -> None:
    """Raise :class:`ValueError` where ``value``, of shape (..., D) or ``(...)``, is not in the distribution's support.

    ``is_wanted`` says whether to look; by default a distribution that validates looks.
    """
    if validates(distribution) if is_wanted is None else is_wanted:
        distribution._validate_sample(value)


@contextmanager
def von_mises_sampler(sampler: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Inside the block angles (of any shape) are drawn by ``sampler(loc, concentration, proposal_r, x)``.

    torch's own draws until all angles are accepted, and overwrites those that were before: what it gives for one
    depends on the others.
    """
    module = torch.distributions.von_mises
    before = getattr(module, "_rejection_sample", None)
    if before is None:
        yield
        return
    module._rejection_sample = sampler
    try:
        yield
    finally:
        module._rejection_sample = before


def instance_for_expand(distribution: Distribution, kind: type[D], instance: Any) -> D:
    """The object that ``expand`` fills: ``instance`` where a subclass has made one, otherwise a new one of ``kind``."""
    new: D = distribution._get_checked_instance(kind, instance)
    return new


def version_of(tensor: Tensor) -> object:
    """A value that changes when ``tensor``, of any shape, is written to in place."""
    return getattr(tensor, "_version", object())


def versions_of(tensors: Sequence[Tensor]) -> list[object]:
    """The values of :func:`version_of` for ``tensors``, of any shapes, without a line of Python for each."""
    try:
        return list(map(_VERSION, tensors))
    except (AttributeError, RuntimeError):  # tensors of inference mode count nothing
        return [version_of(tensor) for tensor in tensors]


def with_own_modules(module: M) -> M:
    """The module itself, a copy that shared its children's dictionary with the original and has its own now."""
    module._modules = dict(module._modules)
    return module


def moved_transform(transform: Transform, fn: Callable[[Tensor], Tensor]) -> Transform:
    """A copy of a transform, with ``fn`` applied to every tensor in it, of any shape, and in the transforms inside."""
    moved, is_inverse = copy(transform), isinstance(transform, _InverseTransform)
    for name, value in vars(transform).items():
        if isinstance(value, Tensor):
            setattr(moved, name, fn(value))
        elif isinstance(value, Transform) and (name != "_inv" or is_inverse):
            setattr(moved, name, moved_transform(value, fn))
        elif isinstance(value, list) and any(isinstance(item, Transform) for item in value):
            setattr(moved, name, [moved_transform(item, fn) for item in value])
    if not is_inverse:
        # log_prob goes through the inverse, and a copy keeps the one that was made of the old tensors
        moved._inv = None
    moved._cached_x_y = (None, None)
    return moved
