"""Kullback-Leibler divergences in closed form that torch does not have.

Without them `TraceMeanField_ELBO` falls back to one Monte Carlo draw and says nothing.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
    register_kl,
)

from probvae.errors import ArgumentError


@register_kl(MultivariateNormal, Independent)
def full_to_independent_normal(q: MultivariateNormal, p: "Independent[Any]") -> Tensor:
    r"""KL(N(m, L L^T) || prod_i N(mu_i, s_i^2)) in nats, of shape (...) for batches (...).

    .. math:: \tfrac12 \sum_i \frac{(L L^T)_{ii} + (m_i - \mu_i)^2}{s_i^2} - 1 + 2 \log s_i - 2 \log L_{ii}
    """
    if not isinstance(p.base_dist, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError(f"no closed form of KL(MultivariateNormal || {p})")
    factor, scale = q.scale_tril, p.base_dist.scale
    variance = factor.square().sum(-1)
    squared = (variance + (q.loc - p.base_dist.loc).square()) / scale.square()
    log_ratio = scale.log() - factor.diagonal(dim1=-2, dim2=-1).log()
    return (0.5 * (squared - 1) + log_ratio).sum(-1)


@register_kl(Independent, MultivariateNormal)
def independent_normal_to_full(q: "Independent[Any]", p: MultivariateNormal) -> Tensor:
    """KL(prod_i N(m_i, s_i^2) || N(mu, L L^T)) in nats, batched: torch's formula, with diag(s) as q's factor."""
    return kl_divergence(_as_full(q), p)


@register_kl(LowRankMultivariateNormal, Independent)
def low_rank_to_independent_normal(q: LowRankMultivariateNormal, p: "Independent[Any]") -> Tensor:
    r"""KL(N(m, V V^T + D) || prod_i N(mu_i, s_i^2)) in nats, of shape (...) for batches (...).

    .. math:: \tfrac12 \sum_i \Big[\frac{(V V^T)_{ii} + D_i + (m_i - \mu_i)^2}{s_i^2} - 1
              + \log \frac{s_i^2}{D_i}\Big] - \tfrac12 \log\det(I + V^T D^{-1} V)
    """
    if not isinstance(p.base_dist, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError(f"no closed form of KL(LowRankMultivariateNormal || {p})")
    factor, diagonal, scale = q.cov_factor, q.cov_diag, p.base_dist.scale
    squared = (q.variance + (q.loc - p.base_dist.loc).square()) / scale.square()
    log_ratio = 2 * scale.log() - diagonal.log()
    capacitance = torch.eye(factor.shape[-1]).to(factor) + factor.mT @ (factor / diagonal.unsqueeze(-1))
    log_det = torch.linalg.cholesky(capacitance).diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (squared - 1 + log_ratio).sum(-1) - log_det


@register_kl(Independent, LowRankMultivariateNormal)
def independent_normal_to_low_rank(q: "Independent[Any]", p: LowRankMultivariateNormal) -> Tensor:
    """KL(prod_i N(m_i, s_i^2) || N(mu, V V^T + D)) in nats, batched: torch's formula, with diag(s) as q's factor."""
    return kl_divergence(_as_full(q), p)


def analytic_kl(q: Distribution, p: Distribution) -> Tensor:
    """KL(q || p) in nats; an error, never a Monte Carlo estimate, where there is no closed form.

    >>> import torch
    >>> q = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    >>> p = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    >>> analytic_kl(q, p)
    tensor(0.)
    """
    try:
        return kl_divergence(q, p)
    except NotImplementedError as error:
        raise ArgumentError(
            f"analytic-kl: expected a closed form of KL(q || p), and there is none from {_describe(q)} to "
            f"{_describe(p)}. Use objective='elbo', which estimates it."
        ) from error


def has_analytic_kl(q: Distribution, p: Distribution) -> bool:
    """True where :func:`analytic_kl` has a closed form for this pair."""
    try:
        kl_divergence(q, p)
    except NotImplementedError:
        return False
    return True


def _as_full(q: "Independent[Any]") -> MultivariateNormal:
    if not isinstance(q.base_dist, Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError(f"no closed form of KL from {q}")
    return MultivariateNormal(q.base_dist.loc, scale_tril=torch.diag_embed(q.base_dist.scale))


def _describe(distribution: Distribution) -> str:
    base = getattr(distribution, "base_dist", None)
    name = type(distribution).__name__
    return f"{name}({type(base).__name__})" if base is not None else name
