"""The guide of the derivation, with a full covariance."""

import math
from typing import Self

from pyro import distributions as dist
from torch import Tensor, nn

from probvae.inference.encoders import MLPEncoder
from probvae.inference.guides.base import AmortizedGuide, bounded_scale
from probvae.models.cholesky import num_dependences, scale_tril
from probvae.models.stable_densities import StableMultivariateNormal


class FullCovarianceGuide(AmortizedGuide, name="full-covariance"):
    r"""Normal with a full covariance, q_x(z) = N(g(x), L(x) L(x)^T).

    .. math:: z = L(x) \zeta + g(x), \qquad L = \operatorname{diag}(s) (I + T), \qquad \zeta \sim N(0, I)

    with T strictly lower triangular, so that the scales s and the dependence T are learned apart. It is exact for
    every Gaussian posterior whose mean and covariance the encoder can give.

    Parameters: ``loc`` (d), ``log_scale`` (d) and ``dependence`` (d (d - 1) / 2) are linear heads on the features
    of ``encoder``; the diagonal s of the Cholesky factor is a standard deviation, kept within exp(+-10).
    Source: Rocca (2019) (the general h); Kingma and Welling (2019), arXiv:1906.02691, section 2.5.1.

    >>> import torch
    >>> guide = FullCovarianceGuide(MLPEncoder(data_dim=3, hidden=(8,)), latent_dim=2)
    >>> guide.distribution(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, num_features: int | None = None) -> None:
        super().__init__(encoder, latent_dim, num_features)
        self.loc = self.linear_head(latent_dim)
        self.log_scale = self.zero_head(latent_dim)
        self.dependence = self.zero_head(num_dependences(latent_dim, "full")) if latent_dim > 1 else None

    def heads(self) -> list[nn.Linear]:
        return [head for head in (self.loc, self.log_scale, self.dependence) if head is not None]

    def member(self, parameters: Tensor) -> dist.TorchDistribution:
        return full_normal(parameters)

    @classmethod
    def example(cls) -> Self:
        return cls(MLPEncoder(data_dim=3, hidden=(5,)), latent_dim=2)


def full_normal(parameters: Tensor) -> dist.TorchDistribution:
    """N(m, L L^T) from (m, raw log s, T), (..., d + d + d (d - 1) / 2)."""
    d = (math.isqrt(9 + 8 * parameters.shape[-1]) - 3) // 2
    loc, log_scale, dependence = parameters.split([d, d, num_dependences(d, "full")], dim=-1)
    return StableMultivariateNormal(loc, scale_tril=scale_tril(bounded_scale(log_scale), dependence))
