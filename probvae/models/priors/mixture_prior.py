"""A learned mixture of Gaussians."""

from typing import Self

import torch
from pyro import distributions as dist
from torch import nn

from probvae.foundation.checks import check_count
from probvae.models.cholesky import check_covariance, num_dependences, scale_tril
from probvae.models.priors.base import Prior
from probvae.models.stable_densities import StableMultivariateNormal


class MixturePrior(Prior, name="mixture"):
    r"""Learned mixture of K Gaussians, p(z) = sum_k pi_k N(m_k, L_k L_k^T).

    .. math:: p(z) = \sum_{k=1}^K \pi_k \prod_{i=1}^d \mathcal{N}(z_i; m_{ki}, s_{ki}^2)
              \quad \text{(diagonal)}, \qquad L_k = \operatorname{diag}(s_k) (I + T_k) \quad \text{(full)}

    The sum is outside the product: one component explains the whole vector z.

    Parameters: ``logits`` log pi_k up to a constant (K,), ``loc`` m (K, d), ``log_scale`` log s (K, d), and for
    ``covariance="full"`` ``dependence`` (K, d (d - 1) / 2), the entries of the strictly lower triangular T_k.
    It starts with equal weights, unit covariances, and means drawn from N(0, I): components that began at one place
    would get the same gradient and stay together.
    Units: m and s are in the units of z; s is a standard deviation.
    Raises :class:`~probvae.errors.ArgumentError` for counts below one, and
    :class:`~probvae.errors.UnknownNameError` for another ``covariance``.
    Source: Tomczak and Welling (2018), arXiv:1705.07120, section 3 (their baseline "MoG").

    >>> MixturePrior(latent_dim=2, num_components=3)().event_shape
    torch.Size([2])
    """

    def __init__(self, latent_dim: int, num_components: int = 10, covariance: str = "diagonal") -> None:
        super().__init__()
        check_count(latent_dim, "latent_dim")
        check_count(num_components, "num_components")
        check_covariance(covariance)
        self.latent_dim = latent_dim
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.loc = nn.Parameter(torch.randn(num_components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(num_components, latent_dim))
        size = num_dependences(latent_dim, covariance)
        self.dependence = nn.Parameter(torch.zeros(num_components, size)) if size else None

    def forward(self) -> dist.TorchDistribution:
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), self._components())

    def _components(self) -> dist.TorchDistribution:
        """The K Gaussians: batch_shape (K,), event_shape (d,)."""
        scale = self.log_scale.exp()
        if self.dependence is None:
            return dist.Normal(self.loc, scale).to_event(1)
        return StableMultivariateNormal(self.loc, scale_tril=scale_tril(scale, self.dependence))

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, num_components=3, covariance="full")
