"""Distributions without a density on R^d: point masses and discrete values, and the error that names them."""

from collections.abc import Iterator

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Distribution

from probvae.errors import ArgumentError
from probvae.foundation.seed import isolated_seed

# So many draws of a continuous distribution are never all the same number.
_NUM_DRAWS = 8
# A distribution that wraps others has them under one of these names.
_PARTS = ("base_dist", "component_distribution", "component0", "component1", "components", "_base_distribution")


def point_mass_in(q: Distribution) -> str | None:
    """The name of the part of ``q`` that has no density on R^d: a point mass or discrete values; None where all have.

    Distributions inside of others are looked at: independent dimensions, transforms, masks, components of mixtures.

    >>> point_mass_in(dist.Delta(torch.zeros(5, 2)).to_event(1)), point_mass_in(dist.Normal(torch.zeros(5), 1.0))
    ('Delta', None)
    """
    if isinstance(q, dist.Delta) or _is_discrete(q):
        return type(q).__name__
    return next((name for part in _parts(q) if (name := point_mass_in(part)) is not None), None)


def check_has_density(q: Distribution, where: str = "guide") -> None:
    """Raise :class:`~probvae.errors.ArgumentError` for a ``q`` that is known to have no density; ``where`` it stands.

    The "bound" of a guide without a density is none: it lies above log p(x).
    """
    if (name := point_mass_in(q)) is not None:
        raise without_density(where, f"a point mass or discrete values ({name})")


def check_draws_have_density(q: Distribution, where: str = "guide") -> None:
    """:func:`check_has_density`, and for a ``q`` of any kind whether some z_j of it is one number at every draw.

    A distribution of the user's own may be a point mass without the name. The caller's random state stays as it was.
    """
    check_has_density(q, where)
    with torch.no_grad(), isolated_seed(0, torch.zeros(0).device):
        z = q.sample(torch.Size((_NUM_DRAWS,)))
    fixed = (z == z[:1]).all(0) & z[0].isfinite()
    if fixed.any() and not _is_narrow(q, fixed):
        entries = ", ".join(f"z_{j + 1}" for j in _columns(fixed)[:8])
        raise without_density(where, f"a point mass: all {_NUM_DRAWS} draws of {entries} are the same")


def without_density(where: str, got: str) -> ArgumentError:
    """The error for a latent distribution at ``where`` that is ``got``."""
    return ArgumentError(
        f"{where}: expected a q_x(z) with a density on R^d, got {got}. Without a density KL(q || p(z|x)) is infinite, "
        "and what looks like a bound lies above log p(x). Give it a width, dist.Normal(loc, scale) in the place of "
        "dist.Delta(loc)."
    )


def _is_discrete(q: Distribution) -> bool:
    try:
        return bool(q.support.is_discrete)  # type: ignore[union-attr]  # None raises as well
    except (AttributeError, NotImplementedError, ValueError):
        return False


def _parts(q: Distribution) -> Iterator[Distribution]:
    for name in _PARTS:
        part = getattr(q, name, None)
        for inner in part if isinstance(part, list | tuple) else (part,):
            if isinstance(inner, Distribution):
                yield inner


def _is_narrow(q: Distribution, fixed: Tensor) -> bool:
    """True for a ``q`` whose width where it is ``fixed`` is above zero, and below the spacing of its numbers."""
    try:
        return bool((q.variance[fixed] > 0).all())
    except (NotImplementedError, AttributeError, ValueError):
        return False


def _columns(fixed: Tensor) -> list[int]:
    return sorted({int(index[-1]) for index in fixed.reshape(-1, fixed.shape[-1]).nonzero()})
