"""A prior made of any distribution of torch's or Pyro's."""

from collections.abc import Callable, Iterator
from copy import copy, deepcopy
from typing import Any, Self

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

from probvae.errors import ArgumentError, ShapeError
from probvae.foundation.torch_internals import moved_transform
from probvae.models.priors.base import Prior


class DistributionPrior(Prior):
    """A distribution handed over as it is; an ``nn.Parameter`` that it was built from is trained with the model.

    ``LatentModel`` makes one of every distribution that it gets in the place of a prior. The distribution needs
    batch_shape () and event_shape (d,): ``.to_event(1)``, or ``torch.distributions.Independent(p, 1)``, makes one of d
    independent numbers. It is copied, but for its parameters, and its tensors follow ``.to()``. It has no name, so that
    a model with it cannot be saved by name.
    Raises :class:`~probvae.errors.ShapeError` for other shapes, and :class:`~probvae.errors.ArgumentError` for a tensor
    that was *computed* from a parameter (``log_scale.exp()``): the distribution has its value, not the way there.

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
        # A trained tensor has a placeholder in the copy, and the name of the parameter that it is an expanded view of.
        sources = {id(tensor): (tensor, _source(tensor)) for tensor in _trained_tensors(distribution)}
        names = {id(parameter): f"parameter_{n}" for n, (_, parameter) in enumerate(sources.values())}
        for _, parameter in sources.values():
            self.register_parameter(names[id(parameter)], parameter)
        memo: dict[int, Any] = {key: tensor.detach().clone() for key, (tensor, _) in sources.items()}
        self._placeholders = [(memo[key], names[id(parameter)]) for key, (_, parameter) in sources.items()]
        self._distribution = _as_pyro(deepcopy(distribution, memo))

    def forward(self) -> dist.TorchDistribution:
        if not self._placeholders:
            return self._distribution
        # A new view in each step: the old one's gradient has been taken.
        views = {id(held): getattr(self, name).expand_as(held) for held, name in self._placeholders}
        return _mapped(self._distribution, lambda tensor: views.get(id(tensor), tensor))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        held = {id(tensor) for tensor, _ in self._placeholders}
        self._distribution = _mapped(self._distribution, lambda t: t if id(t) in held else fn(t))
        return self

    @classmethod
    def example(cls) -> Self:
        return cls(torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)))


def _trained_tensors(part: Any) -> Iterator[Tensor]:
    """The tensors that require a gradient in a distribution, and in the distributions and transforms inside it."""
    for name, value in vars(part).items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, Tensor) and item.requires_grad:
                yield item
            elif isinstance(item, Distribution | Transform) and name != "_inv":
                yield from _trained_tensors(item)


def _source(tensor: Tensor) -> nn.Parameter:
    """The leaf that ``tensor`` is, or is an expanded view of."""
    node: Any = tensor.grad_fn
    while node is not None and node.name().startswith("ExpandBackward"):
        node = node.next_functions[0][0]
    leaf = tensor if tensor.grad_fn is None else getattr(node, "variable", None)
    if not isinstance(leaf, nn.Parameter):
        raise ArgumentError(
            "prior: expected an nn.Parameter that stands in the distribution itself, got a number computed from one "
            f"({tensor.grad_fn.name() if tensor.grad_fn else ''}), which a fit could not train. Hand over the "
            "parameter itself, detach it, or write a Prior whose forward() builds the distribution (see NormalPrior)."
        )
    return leaf


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
