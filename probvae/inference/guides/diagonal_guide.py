"""The guide of the derivation, with a diagonal covariance."""

from typing import Self

from pyro import distributions as dist
from torch import Tensor, nn

from probvae.inference.encoders import MLPEncoder
from probvae.inference.guides.base import AmortizedGuide, bounded_scale


class DiagonalGuide(AmortizedGuide, name="diagonal"):
    r"""Normal with a diagonal covariance, q_x(z) = N(g(x), diag(s(x)^2)).

    .. math:: z = s(x) \odot \zeta + g(x), \qquad \zeta \sim N(0, I)

    It is exact iff the posterior precision P is diagonal, and otherwise loses at least
    (sum_i log P_ii - log det P) / 2 nats for a Gaussian posterior.

    Parameters: ``loc`` and ``log_scale`` are linear heads on the features of ``encoder``, which they share;
    s is a standard deviation in the units of z, kept within exp(+-10).
    ``num_features`` is needed only for an encoder without that attribute.
    Source: Kingma and Welling (2014), arXiv:1312.6114, equation 9; Rocca (2019).

    >>> import torch
    >>> DiagonalGuide(MLPEncoder(data_dim=3, hidden=(8,)), latent_dim=2).distribution(torch.zeros(5, 3)).batch_shape
    torch.Size([5])
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, num_features: int | None = None) -> None:
        super().__init__(encoder, latent_dim, num_features)
        self.loc = self.linear_head(latent_dim)
        self.log_scale = self.zero_head(latent_dim)

    def heads(self) -> list[nn.Linear]:
        return [self.loc, self.log_scale]

    def member(self, parameters: Tensor) -> dist.TorchDistribution:
        return diagonal_normal(parameters)

    @classmethod
    def example(cls) -> Self:
        return cls(MLPEncoder(data_dim=3, hidden=(5,)), latent_dim=2)


def diagonal_normal(parameters: Tensor) -> dist.TorchDistribution:
    """N(m, diag(s^2)) from (m, raw log s), (..., 2 d)."""
    loc, log_scale = parameters.chunk(2, dim=-1)
    return dist.Normal(loc, bounded_scale(log_scale)).to_event(1)
