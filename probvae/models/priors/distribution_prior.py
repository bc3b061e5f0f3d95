"""A prior made of any distribution of torch's or Pyro's."""

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any, Self

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Distribution, Transform

from probvae.errors import ShapeError
from probvae.foundation.torch_internals import moved_transform
from probvae.models.priors.base import Prior


class DistributionPrior(Prior):
    """A distribution as a prior, as it is, without parameters to learn.

    ``LatentModel`` wraps every distribution that it gets in the place of a prior. The distribution needs batch_shape ()
    and event_shape (d,): ``.to_event(1)``, or ``torch.distributions.Independent(p, 1)``, joins d independent numbers.
    The distribution is copied, and its tensors follow ``.to()``. It has no name, so that a model with it cannot be
    saved by name.
    Raises :class:`~probvae.errors.ShapeError` for other shapes.

    >>> prior = DistributionPrior(torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)))
    >>> prior.latent_dim
    2
    """

    def __init__(self, distribution: Distribution) -> None:
        super().__init__()
        batch, event = tuple(distribution.batch_shape), tuple(distribution.event_shape)
        if batch or len(event) != 1:
            fix = "Call .to_event(1) on it, or wrap it: torch.distributions.Independent(p, 1)."
            raise ShapeError(f"prior: expected batch_shape () and event_shape (d,), got {batch} and {event}. {fix}")
        self.latent_dim = int(event[0])
        self._distribution = _as_pyro(deepcopy(distribution))

    def forward(self) -> dist.TorchDistribution:
        return self._distribution

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._distribution = _mapped(self._distribution, fn)
        return self

    @classmethod
    def example(cls) -> Self:
        return cls(torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)))


def _as_pyro(distribution: Any) -> Any:
    """The distribution, and those inside it, with the methods that ``pyro.sample`` needs."""
    if not isinstance(distribution, TorchDistributionMixin):
        kind = type(distribution)
        known = getattr(dist, kind.__name__, None)
        fits = isinstance(known, type) and issubclass(known, kind)
        distribution.__class__ = known if fits else type(kind.__name__, (kind, TorchDistributionMixin), {})
    for name, value in vars(distribution).items():
        if isinstance(value, Distribution):
            setattr(distribution, name, _as_pyro(value))
    return distribution


def _mapped(distribution: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """A copy with ``fn`` applied to every tensor in it."""
    moved = copy(distribution)
    for name, value in vars(distribution).items():
        if isinstance(value, Tensor):
            vars(moved)[name] = fn(value)
        elif isinstance(value, Distribution):
            vars(moved)[name] = _mapped(value, fn)
        elif isinstance(value, list) and any(isinstance(item, Transform) for item in value):
            vars(moved)[name] = [moved_transform(item, fn) for item in value]
    return moved
