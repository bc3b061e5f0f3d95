"""One Gaussian whose mean and covariance are learned."""

from typing import Self

import torch
from pyro import distributions as dist
from torch import nn

from probvae.foundation.checks import check_count
from probvae.models.cholesky import check_covariance, num_dependences, scale_tril
from probvae.models.priors.base import Prior
from probvae.models.stable_densities import StableMultivariateNormal


class NormalPrior(Prior, name="normal"):
    r"""Normal with a learned mean and covariance, p(z) = N(m, L L^T).

    .. math:: \log p(z) = -\tfrac12 \lVert L^{-1} (z - m) \rVert^2 - \sum_i \log s_i - \tfrac{d}{2} \log 2\pi,
              \qquad L = \operatorname{diag}(s) (I + T)

    with T strictly lower triangular, and zero where ``covariance="diagonal"``. A decoder that is linear in its first
    layer can absorb m and L, so that this prior adds speed there and no flexibility.

    Parameters: ``loc`` m (d,), ``log_scale`` log s (d,), and for ``covariance="full"`` ``dependence``, the
    d (d - 1) / 2 entries of T. It starts at N(0, I). Units: m and s are in the units of z; s is a standard deviation.
    Raises :class:`~probvae.errors.ArgumentError` for a ``latent_dim`` below one, and
    :class:`~probvae.errors.UnknownNameError` for another ``covariance``.
    Source: Kingma and Welling (2019), arXiv:1906.02691, section 2.5.1 (the factor).

    >>> NormalPrior(latent_dim=2, covariance="full")().event_shape
    torch.Size([2])
    """

    def __init__(self, latent_dim: int, covariance: str = "diagonal") -> None:
        super().__init__()
        check_count(latent_dim, "latent_dim")
        check_covariance(covariance)
        self.latent_dim = latent_dim
        self.loc = nn.Parameter(torch.zeros(latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))
        size = num_dependences(latent_dim, covariance)
        self.dependence = nn.Parameter(torch.zeros(size)) if size else None

    def forward(self) -> dist.TorchDistribution:
        scale = self.log_scale.exp()
        if self.dependence is None:
            return dist.Normal(self.loc, scale).to_event(1)
        return StableMultivariateNormal(self.loc, scale_tril=scale_tril(scale, self.dependence))

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, covariance="full")
