"""The region in which a prior has a density: all of R^d, an interval, or a circle that R covers again and again."""

import math
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Distribution, constraints

from probvae.foundation.seed import isolated_seed
from probvae.inference.evidence.cubature import Box
from probvae.models import LatentModel

# Draws, the box around them in multiples of their range, and how high the density beyond may be beside that within
_NUM_DRAWS, _MARGIN, _LEAST_RATIO = 256, 2.5, 0.02
# Wrappers whose values are those of the distribution inside
_SAME_VALUES = (dist.Independent, torch.distributions.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)


def support_of(prior: Distribution, like: Tensor) -> Box:
    r"""The ends of the interval of each z_j, (d,) of the dtype of ``like`` (d,); infinite where there is no end.

    An angle has :math:`[-\pi, \pi]`: its density is known beyond, and repeats itself there.

    >>> support_of(dist.VonMises(0.0, torch.ones(1)).to_event(1), torch.zeros(1)).upper
    tensor([3.1416])
    """
    known: Any = prior
    if (circular := getattr(known, "is_circular", None)) is None:
        while not isinstance(known, dist.VonMises) and hasattr(known, "base_dist") and type(known) in _SAME_VALUES:
            known = known.base_dist
        circular = isinstance(known, dist.VonMises)
    angle = torch.as_tensor(circular, device=like.device).expand(like.shape)
    constraint: Any = prior.support
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    ends = getattr(constraint, "lower_bound", -math.inf), getattr(constraint, "upper_bound", math.inf)
    lower, upper = (torch.as_tensor(end).to(like).expand_as(like) for end in ends)
    return Box(lower.where(~angle, -math.pi), upper.where(~angle, math.pi))


def is_everywhere(model: LatentModel) -> bool:
    """True if p(z) has a density in all of R^d, where chains may move freely.

    >>> import probvae
    >>> is_everywhere(probvae.VAE.example().model)
    True
    """
    prior = model.prior()
    ends = support_of(prior, torch.zeros(model.latent_dim))
    is_open = bool((torch.isinf(ends.lower) & torch.isinf(ends.upper)).all())
    return is_open and not isinstance(prior.support, type(constraints.simplex)) and not repeats(prior)


@torch.no_grad()
def repeats(prior: Distribution) -> bool:
    """True for a density (d,) that is as high where it is never drawn as where it is: an angle's, as a rule.

    >>> repeats(dist.VonMises(0.0, torch.ones(1)).to_event(1)), repeats(dist.Cauchy(0.0, torch.ones(1)).to_event(1))
    (True, False)
    """
    with isolated_seed(0):
        draws = prior.sample(torch.Size((_NUM_DRAWS,)))
    lower, upper = torch.aminmax(draws, dim=0)
    centre, half = (lower + upper) / 2, _MARGIN * (upper - lower) / 2
    places = torch.linspace(1, 3, _NUM_DRAWS // 2).to(draws)
    places, log_density = torch.cat([-places, places]), prior.log_prob(draws)
    for axis in range(draws.shape[1]):
        beyond = draws.clone()
        beyond[:, axis] = centre[axis] + half[axis] * places
        if float((prior.log_prob(beyond) - log_density).exp().nan_to_num(0.0).mean()) > _LEAST_RATIO:
            return True
    return False
