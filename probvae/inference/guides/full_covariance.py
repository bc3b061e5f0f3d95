"""The guide of the derivation, with a full covariance."""

from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from probvae.inference.encoders import MLPEncoder
from probvae.inference.guides.base import AmortizedGuide, bounded_scale


class FullCovarianceGuide(AmortizedGuide, name="full-covariance"):
    r"""Normal with a full covariance, q_x(z) = N(g(x), L(x) L(x)^T).

    .. math:: z = L(x) \zeta + g(x), \qquad L = \operatorname{diag}(s) (I + T), \qquad \zeta \sim N(0, I)

    with T strictly lower triangular, so that the scales s and the dependence T are learned apart. It is exact for
    every Gaussian posterior whose mean and covariance the encoder can give.

    Parameters: ``loc`` (d), ``log_scale`` (d) and ``dependence`` (d (d - 1) / 2) are linear heads on the features
    of ``encoder``; the diagonal s of the Cholesky factor is a standard deviation, kept within exp(+-10).
    Source: Rocca (2019) (the general h); Kingma and Welling (2019), arXiv:1906.02691, section 2.5.1.

    >>> guide = FullCovarianceGuide(MLPEncoder(data_dim=3, hidden=(8,)), latent_dim=2)
    >>> guide.distribution(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, encoder: nn.Module, latent_dim: int, num_features: int | None = None) -> None:
        super().__init__(encoder, latent_dim, num_features)
        rows, columns = torch.tril_indices(latent_dim, latent_dim, offset=-1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.loc = self.linear_head(latent_dim)
        self.log_scale = self.zero_head(latent_dim)
        self.dependence = self.zero_head(len(rows)) if latent_dim > 1 else None

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        features = self.encoder(x)
        return dist.MultivariateNormal(self.loc(features), scale_tril=self._scale_tril(features))

    def _scale_tril(self, features: Tensor) -> Tensor:
        scale = bounded_scale(self.log_scale(features))
        factor = torch.diag_embed(torch.ones_like(scale))
        if self.dependence is not None:
            factor[..., self.rows, self.columns] = self.dependence(features)
        return scale.unsqueeze(-1) * factor

    @classmethod
    def example(cls) -> Self:
        return cls(MLPEncoder(data_dim=3, hidden=(5,)), latent_dim=2)
