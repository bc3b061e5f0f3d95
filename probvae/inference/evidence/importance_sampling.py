"""Importance sampling of the evidence with the guide as proposal, for any number of draws."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from probvae.foundation.checks import check_count
from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.non_finite import raise_as_non_finite
from probvae.inference.densities.traces import LogWeights
from probvae.inference.evaluation.memory import limited_memory
from probvae.inference.evaluation.row_tiles import draw_blocks, drawn_tiles
from probvae.inference.evidence.log_mean_errors import log_mean_error, summed
from probvae.inference.pair import VAE, check_data

# Rounding errors of a log density, in units of the last digit of its terms
_ROUNDINGS = 64


class ImportanceResult(NamedTuple):
    """``log_evidence`` L_K, its ``standard_error`` about log p(x), and the effective sample size ``ess``, each (N,)."""

    log_evidence: Tensor
    standard_error: Tensor
    ess: Tensor


@raise_as_non_finite()
def importance_log_evidence(
    vae: VAE, x: Tensor, num_samples: int = 1000, seed: int = 0, *, memory_limit: int | None = None
) -> ImportanceResult:
    r"""The importance-weighted bound of each datum, in nats per datum.

    .. math:: L_K = \log \frac1K \sum_{k=1}^K w_k, \qquad w_k = \frac{p(x|z_k)\, p(z_k)}{q_x(z_k)}, \quad z_k \sim q_x

    E[L_K] <= log p(x), increasing in K; with the exact guide every w_k is p(x) and L_K is the evidence. ``x`` is
    (N, D). Memory grows neither with N nor with K, and stays below ``memory_limit`` (bytes, see
    :func:`~probvae.inference.evaluation.limited_memory`); the weights are summed in float64. The standard error is
    that of :func:`~probvae.inference.evidence.log_mean_errors.log_mean_error`: log p(x) is within two of them for about
    95 of 100 data, the bound's bias counted. It is NaN for K = 1, and it comes from the weights that were drawn, so it
    knows nothing of a region that the guide never visits.

    Raises :class:`~probvae.errors.ArgumentError` for K < 1, :class:`~probvae.errors.DataError` for bad data, and
    :class:`~probvae.errors.NonFiniteError` where they overflow in the networks.
    Source: Burda, Grosse and Salakhutdinov (2016), arXiv:1509.00519, equation 8.

    >>> import probvae
    >>> importance_log_evidence(probvae.VAE.example(), torch.zeros(5, 3), num_samples=10).log_evidence.shape
    torch.Size([5])
    """
    check_count(num_samples, "num_samples")
    check_data(vae, x)
    with limited_memory(memory_limit), isolated_seed(seed, x.device), torch.no_grad():
        parts = [_summed(blocks, num_samples) for _, blocks in drawn_tiles(vae, x, num_samples, seed)]
    return ImportanceResult(*(torch.cat(column).to(x.dtype) for column in zip(*parts, strict=True)))


def _summed(blocks: Iterator[tuple[Tensor, LogWeights]], num_samples: int) -> ImportanceResult:
    sums = summed((terms.log_weight for _, terms in blocks), num_samples)
    return ImportanceResult(sums.log_mean, log_mean_error(sums), sums.ess)


class WeightedDraws(NamedTuple):
    """``log_weights`` (S, N) in nats, their ``rounding`` error (N,), and ``z`` (S, N, d) where it was asked for."""

    log_weights: Tensor
    rounding: Tensor
    z: Tensor | None


@torch.no_grad()
def weighted_draws(
    vae: VAE, x: Tensor, num_samples: int, seed: int, *, q: Distribution | None = None, keep_draws: bool = False
) -> WeightedDraws:
    """Draws of ``q`` (default: the guide's q_x) with log w = log p(x, z) - log q(z), all weights kept, in float64.

    For a tile of the data, see :mod:`~probvae.inference.evaluation.row_tiles`.
    """
    q = vae.guide.distribution(x) if q is None else q
    weights, kept, size = [], [], x.new_zeros(len(x))
    for z, terms in draw_blocks(vae, x, q, num_samples, seed):
        log_joint = terms.log_prior + terms.log_likelihood
        weights.append((log_joint - terms.log_guide).double())
        size = torch.maximum(size, (log_joint.abs() + terms.log_guide.abs()).mean(0))
        kept += [z] if keep_draws else []
    rounding = _ROUNDINGS * torch.finfo(x.dtype).eps * (size + x.shape[1])
    return WeightedDraws(torch.cat(weights), rounding, torch.cat(kept) if keep_draws else None)
