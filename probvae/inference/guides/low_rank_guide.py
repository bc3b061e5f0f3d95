"""A guide between the diagonal and the full one."""

import math
from typing import Any, Self

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from probvae.errors import ArgumentError
from probvae.foundation.checks import check_count
from probvae.foundation.torch_internals import check_value, instance_for_expand
from probvae.inference.encoders import MLPEncoder
from probvae.inference.guides.base import AmortizedGuide, bounded_scale

# V begins at this share of the prior's scale: at V = 0 the gradient in V is zero for every posterior, and V would
# stay there.
_FIRST_FACTOR = 0.1


class LowRankGuide(AmortizedGuide, name="low-rank"):
    r"""Normal with a covariance of low rank plus a diagonal, q_x(z) = N(g(x), V(x) V(x)^T + diag(s(x)^2)).

    .. math:: z = g(x) + V(x) \zeta + s(x) \odot \epsilon, \qquad \zeta \sim N(0, I_r), \quad \epsilon \sim N(0, I_d)

    It has d (2 + r) outputs where the full covariance has d (d + 3) / 2, and costs O(d r^2) a draw. With ``rank`` d - 1
    it contains every normal that the full one can give; two dimensions need rank 1.

    Parameters: ``loc`` (d), ``log_scale`` (d) and ``factor`` (d r) are linear heads on the features of ``encoder``;
    s is a standard deviation in the units of z, kept within exp(+-10). ``num_features`` is needed only for an encoder
    without that attribute.
    Raises :class:`~probvae.errors.ArgumentError` unless 1 <= ``rank`` <= ``latent_dim``.
    Source: Rezende, Mohamed and Wierstra (2014), arXiv:1401.4082, section 4.3; Ong, Nott and Smith (2018),
    arXiv:1701.03208, section 3.

    >>> guide = LowRankGuide(MLPEncoder(data_dim=3, hidden=(8,)), latent_dim=4, rank=2)
    >>> guide.distribution(torch.zeros(5, 3)).covariance_matrix.shape
    torch.Size([5, 4, 4])
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, rank: int = 1, num_features: int | None = None) -> None:
        super().__init__(encoder, latent_dim, num_features)
        check_count(rank, "rank")
        if rank > latent_dim:
            raise ArgumentError(
                f"rank: expected at most latent_dim={latent_dim}, got {rank}. Use guide 'full-covariance'."
            )
        self.rank = rank
        self.loc = self.linear_head(latent_dim)
        self.log_scale = self.zero_head(latent_dim)
        self.factor = self.zero_head(latent_dim * rank)
        nn.init.normal_(self.factor.bias, std=_FIRST_FACTOR)

    def heads(self) -> list[nn.Linear]:
        return [self.loc, self.log_scale, self.factor]

    def member(self, parameters: Tensor) -> dist.TorchDistribution:
        d, r = self.latent_dim, self.rank
        loc, log_scale, factor = parameters.split([d, d, d * r], dim=-1)
        variance = bounded_scale(log_scale).square()
        return StableLowRankNormal(loc, factor.unflatten(-1, (d, r)), variance)

    @classmethod
    def example(cls) -> Self:
        return cls(MLPEncoder(data_dim=3, hidden=(5,)), latent_dim=2)


class StableLowRankNormal(dist.LowRankMultivariateNormal):
    r"""N(g, V V^T + diag(s^2)) whose log density keeps its digits where V is much larger than s.

    .. math:: (z - g)^T \Sigma^{-1} (z - g) = \min_\zeta |y - A \zeta|^2 + |\zeta|^2, \qquad
              y = \frac{z - g}{s}, \quad A = \frac{V}{s}

    Woodbury's formula subtracts two squares as large as |y|^2; at the minimum an error of zeta counts only squared.
    It is computed in float64, since y itself is large; the result has the dtype of ``loc``.
    """

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StableLowRankNormal":
        new: StableLowRankNormal = instance_for_expand(self, StableLowRankNormal, _instance)
        return super().expand(batch_shape, new)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q (...) of z = ``value`` (..., d), in nats."""
        check_value(self, value)
        scale = self.cov_diag.double().sqrt()
        y = (value.double() - self.loc.double()) / scale
        a = self.cov_factor.double() / scale.unsqueeze(-1)
        capacitance = torch.linalg.cholesky(torch.eye(a.shape[-1]).to(a) + a.mT @ a)
        pull = torch.einsum("...dr,...d->...r", a, y).unsqueeze(-1)
        zeta = torch.cholesky_solve(pull, capacitance.expand(*pull.shape[:-2], -1, -1)).squeeze(-1)
        rest = y - torch.einsum("...dr,...r->...d", a, zeta)
        log_det = scale.log().sum(-1) + capacitance.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        normaliser = log_det + 0.5 * y.shape[-1] * math.log(2 * math.pi)
        return (-0.5 * (rest.square().sum(-1) + zeta.square().sum(-1)) - normaliser).to(self.loc.dtype)
