"""How much memory an evaluation may take, and how much one draw of z for one datum takes."""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from pyro.distributions import validation_enabled
from torch import Tensor, nn
from torch.distributions import Distribution

from probvae.foundation.checks import check_count
from probvae.foundation.onednn import fast_products
from probvae.foundation.operators import peak_bytes
from probvae.foundation.row_noise import RowNoise, sample_rows
from probvae.foundation.seed import isolated_seed
from probvae.foundation.torch_internals import validation_kept
from probvae.inference.densities.traces import weight_terms
from probvae.inference.pair import VAE

MEMORY_LIMIT = 512 * 2**20  # bytes
_limit: ContextVar[int | None] = ContextVar("memory limit", default=None)
# Bytes a draw by the structure of a pair: two pairs of one structure take the same memory.
_counted: dict[Hashable, int] = {}
_MOST_COUNTED = 256
_PLAIN = frozenset((bool, int, float, str, type(None), torch.dtype, torch.device, FunctionType, BuiltinFunctionType))
# Attributes that every module has, and the constructor's arguments, decide nothing beside the other attributes.
_IGNORED = frozenset(vars(nn.Module())) - {"_parameters", "_buffers", "training"} | {"arguments"}


@contextmanager
def limited_memory(num_bytes: int | None) -> Iterator[None]:
    """Inside the block, evaluations keep to ``num_bytes`` beside their data and results; None leaves the limit.

    The default is 512 MB. On a CPU the tiles that are fast (they stay in its cache) are far smaller, so that a limit
    costs no time; on a GPU it does. Down to 64 MB it changes no random number, hence nothing beyond rounding.
    Raises :class:`~probvae.errors.ArgumentError` unless ``num_bytes`` is a positive integer.

    >>> import probvae
    >>> with limited_memory(64 * 2**20):
    ...     values = probvae.elbo(probvae.VAE.example(), torch.zeros(5, 3))
    """
    if num_bytes is not None:
        check_count(num_bytes, "memory_limit")
    token = _limit.set(_limit.get() if num_bytes is None else num_bytes)
    try:
        yield
    finally:
        _limit.reset(token)


def current_limit() -> int:
    """How many bytes may be taken, by the innermost :func:`limited_memory` or by default."""
    return _limit.get() or MEMORY_LIMIT


def widest_layer(module: nn.Module) -> int:
    """The largest dimension of any parameter."""
    return max((max(parameter.shape, default=1) for parameter in module.parameters()), default=1)


def bytes_of_a_draw(vae: VAE, x: Tensor) -> int:
    """How many bytes one z for one row of ``x`` (N, D) holds at the peak of its evaluation.

    The count is made once for each structure: classes, sizes and options of all modules, and the form of x. A pair
    with an attribute that cannot be compared (a program's, for instance) is counted at every call.
    """
    vae, x = vae.at(slice(0, 2)), x[:2]
    try:
        key = (_structure(vae.model, vae.guide), x.shape, x.dtype, x.device)
    except _NotPlainError:
        return _count_bytes(vae, x)
    if key not in _counted:
        if len(_counted) >= _MOST_COUNTED:
            _counted.clear()
        _counted[key] = _count_bytes(vae, x)
    return _counted[key]


def _count_bytes(vae: VAE, x: Tensor) -> int:
    """Count in the state in which blocks are evaluated, whatever the caller's: the count decides about tiles."""
    with isolated_seed(0, x.device), torch.no_grad(), unvalidated(), fast_products():
        prior, q = vae.model.prior(), vae.guide.distribution(x)
        few, many = (draw_z(vae, x, q, number) for number in (1, 3))
        peaks = [peak_bytes(partial(weight_terms, vae.model, x, z, prior, q)) for z in (few, many)]
    return max(1, (peaks[1] - peaks[0]) // (2 * len(x)))


def draw_z(vae: VAE, x: Tensor, q: Distribution, num_samples: int, noise: RowNoise | None = None) -> Tensor:
    """z (S, N, d) from ``q``, the guide's q_x for ``x`` (N, D) or another one, each row's from its own ``noise``."""
    try:
        return q.sample(torch.Size((num_samples,))) if noise is None else sample_rows(q, num_samples, noise)
    except RuntimeError:  # torch's generators do not say that a parameter was NaN; its validation does
        with validation_enabled():
            vae.guide.distribution(x)
        raise


def unvalidated() -> AbstractContextManager[None]:
    """A block without torch's checks of every distribution's parameters: a tenth of the time of large blocks."""
    return validation_kept(inside=False)


class _NotPlainError(Exception):
    """An attribute of a module may be anything."""


def _structure(*parts: nn.Module) -> Hashable:
    """All that an evaluation's memory depends on: each module's class, its tensors' shapes, and its options.

    A small model is evaluated in half a millisecond, and this takes a fortieth of one: hence plain loops.
    """
    modules = {module: None for part in parts for module in part.modules()}
    found: list[Any] = []
    for module in modules:
        found.append(type(module))
        for name, value in vars(module).items():
            if name not in _IGNORED:
                found += (name, _plain(value, modules))
    return tuple(found)


def _plain(value: Any, modules: Mapping[nn.Module, None]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return tuple([(name, _plain(part, modules)) for name, part in value.items()])
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if kind is tuple or kind is list or kind is torch.Size:
        return tuple([_plain(part, modules) for part in value])
    if isinstance(value, type):
        return value
    if isinstance(value, nn.Module) and value in modules:
        return kind  # an exact guide refers to its model, for instance
    raise _NotPlainError
