"""The loss of the best member of a restricted Gaussian family against a Gaussian posterior, in closed form."""

import torch
from torch import Tensor

from probvae.errors import ArgumentError, ShapeError


def diagonal_gap(precision: Tensor) -> Tensor:
    r"""min KL(q || p) over Gaussians q with a diagonal covariance, in nats: the approximation gap of that family.

    .. math:: \tfrac12 \Big( \sum_i \log P_{ii} - \log\det P \Big), \qquad
              \text{attained at the mean of } p \text{ and } Q_{ii} = 1 / P_{ii}

    ``precision`` P (..., d, d) is the inverse of the posterior covariance; the result is (...). It is zero iff P is
    diagonal. Raises :class:`~probvae.errors.ArgumentError` for a P that is not positive definite.
    Source: Bishop (2006), "Pattern Recognition and Machine Learning", section 10.1.2 (the variances 1/P_ii).

    >>> diagonal_gap(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))  # log(4 / 3) / 2
    tensor(0.1438)
    """
    log_det = _log_det(precision)
    return (0.5 * (precision.double().diagonal(dim1=-2, dim2=-1).log().sum(-1) - log_det)).to(precision.dtype)


def isotropic_gap(precision: Tensor) -> Tensor:
    r"""min KL(q || p) over q = N(m, s^2 I), in nats.

    .. math:: \tfrac12 \Big( d \log \frac{\operatorname{tr} P}{d} - \log\det P \Big), \qquad
              \text{attained at } s^2 = d / \operatorname{tr} P

    ``precision`` P (..., d, d); the result is (...); s^2 is a variance. Errors are those of :func:`diagonal_gap`.
    Source: set the derivative of KL(N(m, s^2 I) || N(m, P^-1)) in s^2 to zero.

    >>> isotropic_gap(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    tensor(0.1438)
    """
    log_det, d = _log_det(precision), precision.shape[-1]
    gap = 0.5 * (d * precision.double().diagonal(dim1=-2, dim2=-1).mean(-1).log() - log_det)
    return gap.to(precision.dtype)


def forward_diagonal_gap(precision: Tensor) -> Tensor:
    r"""min KL(p || q) over Gaussians q with a diagonal covariance, in nats: what wake-phase training reaches.

    .. math:: \tfrac12 \Big( \sum_i \log S_{ii} - \log\det S \Big), \qquad
              \text{attained at } Q_{ii} = S_{ii}, \quad S = P^{-1}

    ``precision`` P (..., d, d); the result is (...). The best q keeps the marginals of p, where that of
    :func:`diagonal_gap` is narrower. Errors are those of :func:`diagonal_gap`.
    Source: Bishop (2006), "Pattern Recognition and Machine Learning", section 10.1.2 (the marginals).

    >>> forward_diagonal_gap(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    tensor(0.1438)
    """
    log_det = _log_det(precision)
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision.double()))
    return (0.5 * (covariance.diagonal(dim1=-2, dim2=-1).log().sum(-1) + log_det)).to(precision.dtype)


def _log_det(precision: Tensor) -> Tensor:
    """log det P (...) in float64."""
    if precision.ndim < 2 or precision.shape[-1] != precision.shape[-2]:
        raise ShapeError(f"precision: expected shape (..., d, d), got {tuple(precision.shape)}. Pass a square matrix.")
    factor, failed = torch.linalg.cholesky_ex(precision.double())
    if failed.any():
        raise ArgumentError(
            "precision: expected positive definite matrices, got one that is not. "
            "Pass the inverse of a posterior covariance, in float64."
        )
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
