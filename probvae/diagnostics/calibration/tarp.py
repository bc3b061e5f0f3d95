"""Coverage of balls around random points (TARP), and a linear prediction of z from x to put the points near."""

from typing import NamedTuple

import torch
from torch import Tensor

from probvae.diagnostics.calibration.ranks import randomised_rank


class Prediction(NamedTuple):
    """z predicted from x by ridge regression; ``scale`` (d,) is the standard deviation of what is left."""

    mean_x: Tensor
    mean_z: Tensor
    weight: Tensor
    scale: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The prediction (N, d); missing entries of ``x`` (N, D) count as their mean."""
        return self.mean_z + torch.where(x.isnan(), 0.0, x.double() - self.mean_x) @ self.weight


def fit_prediction(z: Tensor, x: Tensor) -> Prediction:
    r"""The linear prediction of ``z`` (N, d) from ``x`` (N, D), in float64.

    .. math:: \hat z(x) = \bar z + (X^T X + D I)^{-1} X^T (Z - \bar z), \qquad X \text{ standardised}

    The penalty D is that of a prior under which all columns together say as much as the noise hides.

    >>> z = torch.randn(500, 1)
    >>> float(fit_prediction(z, torch.cat([z, -z], 1))(torch.ones(1, 2))) < 0.1  # the two columns disagree
    True
    """
    z, x = z.double(), x.double()
    mean_x = x.nanmean(0).nan_to_num(nan=0.0)
    centred = torch.where(x.isnan(), 0.0, x - mean_x)
    size = centred.square().mean(0).sqrt()
    size = torch.where(size > 0, size, 1.0)  # a constant column
    columns = centred / size
    penalty = x.shape[1] * torch.eye(x.shape[1]).to(columns)
    weight = torch.linalg.solve(columns.mT @ columns + penalty, columns.mT @ (z - z.mean(0))) / size[:, None]
    left = z - z.mean(0) - centred @ weight
    return Prediction(mean_x, z.mean(0), weight, left.square().mean(0).sqrt().clamp_min(1e-12))


def tarp_levels(z: Tensor, draws: Tensor, references: Tensor) -> Tensor:
    r"""For each true ``z`` (N, d) the share of ``draws`` (L, N, d) that are nearer to the reference (N, d) than it is.

    .. math:: f = P_{z' \sim q_x}(\|z' - r(x)\| < \|z - r(x)\|)

    f (N,) is the credibility of the ball around r(x) on whose edge the true z lies; ranks are randomised, so f is
    exactly uniform where q is the posterior, for any reference that does not look at z. References that depend on x
    see a guide that does not: with others, a guide that is equal to the prior passes.
    Its ECDF is the expected coverage; test it with :func:`~probvae.diagnostics.ranks.uniformity_p_value`.
    Source: Lemos et al. (2023), "Sampling-based accuracy testing of posterior estimators", arXiv:2302.03026,
    algorithm 2.

    >>> z, draws = torch.randn(50, 2), torch.randn(100, 50, 2)
    >>> tarp_levels(z, draws, references=torch.zeros(50, 2)).shape
    torch.Size([50])
    """
    return randomised_rank((z - references).norm(dim=-1), (draws - references).norm(dim=-1))


def area_to_curve(levels: Tensor) -> float:
    r"""The area between expected coverage and credibility, from credibility 1/2 to 1.

    .. math:: \int_{1/2}^1 P(f \le \alpha) - \alpha \, d\alpha = E[1 - \max(f, 1/2)] - 3/8

    Below zero the balls hold the truth too rarely, so q is too narrow (or biased); above zero q is too wide.
    Source: ``check_tarp`` of the package sbi, which sums over a grid where this integrates.

    >>> round(area_to_curve(torch.tensor([0.0, 1.0])), 3)  # coverage 1/2 at every credibility
    -0.125
    """
    f = levels.double()
    return float((1 - f.clamp_min(0.5)).mean()) - 0.375
