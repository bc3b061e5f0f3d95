"""A guide of any shape."""

from collections.abc import Sequence
from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from probvae.foundation.checks import check_count
from probvae.inference.encoders import MLPEncoder
from probvae.inference.guides.base import AmortizedGuide, bounded_scale
from probvae.models.flows import flow_transform


class FlowGuide(AmortizedGuide, name="flow"):
    r"""Conditional normalising flow: normal noise, bent by splines that depend on x, then scaled and shifted.

    .. math:: z = g(x) + s(x) \odot T_{c(x)}(\zeta), \qquad \zeta \sim N(0, I)

    .. math:: \log q_x(z) = \log N(\zeta; 0, I) - \log |\det \partial T_c / \partial \zeta| - \sum_i \log s_i

    T is a composition of couplings, each an affine map of a rational-quadratic spline. It begins as the identity, so
    that q_x begins as the diagonal guide's normal, and what it learns further is the gain over that. The draws are
    reparameterised, the density is exact at every z, and both take at most two passes of each of T's networks, for
    every latent dimension. Mean and variance have no closed form.

    Parameters: ``loc`` (d), ``log_scale`` (d) and ``context`` (``context_dim``) are linear heads on the features of
    ``encoder``; s is a standard deviation in the units of z before T, kept within exp(+-10). T's own networks, shared
    by all data, have layers of the widths ``hidden``; there are ``num_transforms`` couplings (more than two dimensions
    mix through three or more) with ``num_bins`` bins. ``num_features`` is needed only for an encoder without that
    attribute. Raises :class:`~probvae.errors.ArgumentError` for counts below one.
    Source: Rezende and Mohamed (2015), arXiv:1505.05770, section 4; Durkan et al. (2019), arXiv:1906.04032.

    >>> import torch
    >>> guide = FlowGuide(MLPEncoder(data_dim=3, hidden=(8,)), latent_dim=2)
    >>> guide.distribution(torch.zeros(5, 3)).rsample().shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: int,
        num_transforms: int = 2,
        hidden: Sequence[int] = (32, 32),
        num_bins: int = 8,
        context_dim: int = 8,
        num_features: int | None = None,
    ) -> None:
        super().__init__(encoder, latent_dim, num_features)
        check_count(context_dim, "context_dim")
        self.context_dim = context_dim
        self.loc = self.linear_head(latent_dim)
        self.log_scale = self.zero_head(latent_dim)
        self.context = self.linear_head(context_dim)
        self.flow = flow_transform(latent_dim, context_dim, num_transforms, hidden, num_bins)

    def heads(self) -> list[nn.Linear]:
        return [self.loc, self.log_scale, self.context]

    def member(self, parameters: Tensor) -> dist.TorchDistribution:
        d = self.latent_dim
        loc, log_scale, context = parameters.split([d, d, self.context_dim], dim=-1)
        noise = dist.Normal(torch.zeros_like(loc), torch.ones_like(loc)).to_event(1)
        place = dist.transforms.AffineTransform(loc, bounded_scale(log_scale), event_dim=1)
        return dist.TransformedDistribution(noise, [self.flow(context), place])

    @classmethod
    def example(cls) -> Self:
        return cls(MLPEncoder(data_dim=3, hidden=(5,)), latent_dim=2, hidden=(8,), num_bins=4, context_dim=3)
