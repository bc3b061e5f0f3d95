"""A prior of any shape."""

from collections.abc import Sequence
from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.foundation.checks import check_count
from probvae.models.flows import flow_transform
from probvae.models.priors.base import Prior


class FlowPrior(Prior, name="flow"):
    r"""Learned normalising flow: normal noise, bent by splines.

    .. math:: z = T(\zeta), \quad \zeta \sim N(0, I), \qquad
              \log p(z) = \log N(\zeta; 0, I) - \log |\det \partial T / \partial \zeta|

    T is a composition of couplings, each an affine map of a rational-quadratic spline. It begins as the identity, so
    the prior begins as N(0, I).

    Parameters: ``num_transforms`` couplings, each with a network of the widths ``hidden`` and ``num_bins`` bins.
    Raises :class:`~probvae.errors.ArgumentError` for counts below one.
    Source: Durkan et al. (2019), arXiv:1906.04032; Chen et al. (2017), arXiv:1611.02731 (a flow as a VAE's prior).

    >>> FlowPrior(latent_dim=2)().event_shape
    torch.Size([2])
    """

    loc: Tensor

    def __init__(
        self, latent_dim: int, num_transforms: int = 4, hidden: Sequence[int] = (32, 32), num_bins: int = 8
    ) -> None:
        super().__init__()
        check_count(latent_dim, "latent_dim")
        self.latent_dim = latent_dim
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.flow = flow_transform(latent_dim, 0, num_transforms, hidden, num_bins)

    def forward(self) -> dist.TorchDistribution:
        noise = dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
        return dist.TransformedDistribution(noise, [self.flow(None)])

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, num_transforms=2, hidden=(8,), num_bins=4)
