"""Pareto smoothing of importance weights, for all data at once."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from probvae.errors import ShapeError
from probvae.foundation.checks import check_count

LEAST_SAMPLES = 25  # fewer leave less than five weights for the tail
_LEAST_TAIL = 5
LOG_TINY = math.log(torch.finfo(torch.float64).tiny)
# the weakly informative prior of k: ten observations of a half
_PRIOR_COUNT, _PRIOR_SHAPE = 10, 0.5
# Zhang and Stephens' grid
_GRID_BASE, _GRID_SCALE = 30, 3
_BLOCK = 2**23  # values of tail x grid at once


class SmoothedWeights(NamedTuple):
    """``log_weights`` (S, N), the largest replaced by the expected order statistics of the fitted tail, in nats;
    ``pareto_k`` (N,), the shape of that tail."""

    log_weights: Tensor
    pareto_k: Tensor


def good_pareto_k(num_samples: int) -> float:
    r"""The largest k for which ``num_samples`` weights suffice.

    .. math:: \min(1 - 1 / \log_{10} S, \; 0.7)

    Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), arXiv:1507.02646, section 3.2.

    >>> good_pareto_k(1000)
    0.6666666666666667
    """
    check_count(num_samples, "num_samples", least=2)
    return min(1 - 1 / math.log10(num_samples), 0.7)


def pareto_smooth(log_weights: Tensor, tolerance: float | Tensor = 0.0) -> SmoothedWeights:
    r"""Fit a generalised Pareto distribution to the largest weights of each column, and smooth them.

    The tail are the :math:`M = \min(S/5, 3\sqrt S)` largest weights; its shape k says how many moments the weights
    have: fewer than 1/k. ``log_weights`` is (S, N), S draws for each of N data, each column in nats up to a constant;
    ``tolerance`` (a number, or (N,)) is their rounding error.

    A column whose largest weights are all equal, within the tolerance, has no tail at all, so k = -inf. (Pyro and ArviZ
    call this infinite k, which is the worst grade for the best guide.) A column with one to four weights above all
    others has k = inf.

    Raises :class:`~probvae.errors.ShapeError` for fewer than 25 draws.
    Source: Vehtari et al. (2024), arXiv:1507.02646, algorithm 1; Zhang and Stephens (2009), Technometrics 51(3), for
    the fit.

    >>> log_w = torch.distributions.Pareto(1.0, 2.0).sample((4000, 3)).log()  # k = 1/2
    >>> pareto_smooth(log_w).pareto_k.shape
    torch.Size([3])
    """
    if log_weights.ndim != 2 or len(log_weights) < LEAST_SAMPLES:
        raise ShapeError(
            f"log_weights: expected shape (S, N) with S >= {LEAST_SAMPLES} draws, got {tuple(log_weights.shape)}. "
            "Take more draws."
        )
    log_weights = log_weights.double()
    num_tail = tail_length(len(log_weights))
    columns = max(1, _BLOCK // (num_tail * _grid_size(num_tail)))
    tolerance = torch.as_tensor(tolerance).to(log_weights).expand(log_weights.shape[1])
    blocks = zip(log_weights.split(columns, 1), tolerance.split(columns), strict=True)
    parts = [_smooth(block, slack, num_tail) for block, slack in blocks]
    return SmoothedWeights(torch.cat([part[0] for part in parts], 1), torch.cat([part[1] for part in parts]))


def tail_length(num_samples: int) -> int:
    """M, how many of S weights make the tail."""
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def _grid_size(num_tail: int) -> int:
    return _GRID_BASE + math.isqrt(num_tail)


def _smooth(log_weights: Tensor, tolerance: Tensor, num_tail: int) -> SmoothedWeights:
    largest = log_weights.max(0).values
    ordered, position = (log_weights - largest).sort(0)
    cutoff = ordered[-num_tail - 1].clamp(min=LOG_TINY)
    top = ordered[-num_tail:]
    in_tail = top > cutoff
    length = in_tail.sum(0)
    flat = -cutoff <= tolerance
    fitted = (length >= _LEAST_TAIL) & ~flat
    excess = torch.where(in_tail, cutoff.exp() * torch.expm1(top - cutoff), 0.0)
    k, sigma = fit_pareto(excess[:, fitted], length[fitted])
    pareto_k = torch.where(flat, -math.inf, torch.full_like(largest, math.inf))
    pareto_k[fitted] = k
    smooth = _order_statistics(k, sigma, length[fitted], num_tail) + cutoff[fitted].exp()
    # no smoothed weight is larger than the largest that was drawn
    smooth = torch.where(in_tail[:, fitted] & (sigma > 0), smooth.log().clamp(max=0), top[:, fitted])
    ordered[-num_tail:, fitted] = smooth
    return SmoothedWeights(torch.empty_like(ordered).scatter_(0, position, ordered) + largest, pareto_k)


def fit_pareto(excess: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Shape k and scale (N,) of ``excess`` (M, N) over a cutoff, whose last ``length`` (N,) rows are a rising tail."""
    if not len(length):
        return length.double(), length.double()
    num_tail = len(excess)
    quartile = excess.gather(0, (num_tail - length + (length / 4 + 0.5).long() - 1).unsqueeze(0))[0]
    num_grid = _GRID_BASE + length.double().sqrt().long()
    number = torch.arange(1, _grid_size(num_tail) + 1, dtype=torch.float64, device=excess.device).unsqueeze(1)
    b = (1 - (num_grid / (number - 0.5)).sqrt()) / (_GRID_SCALE * quartile) + 1 / excess[-1]
    b = torch.where(number <= num_grid, b, b[:1])  # grids of shorter tails are shorter
    k = _mean_log(b, excess, length)
    log_likelihood = length * ((-b / k).log() - k - 1)
    log_likelihood = log_likelihood.masked_fill(number > num_grid, -math.inf)
    weight = log_likelihood.softmax(0)
    weight = weight.masked_fill(weight < 10 * torch.finfo(torch.float64).eps, 0.0)
    b_mean = (b * weight).sum(0) / weight.sum(0)
    k_mean = _mean_log(b_mean.unsqueeze(0), excess, length)[0]
    shape = (length * k_mean + _PRIOR_COUNT * _PRIOR_SHAPE) / (length + _PRIOR_COUNT)
    return shape, -k_mean / b_mean


def _mean_log(b: Tensor, excess: Tensor, length: Tensor) -> Tensor:
    """The mean of log(1 - b x) over the tail, (G, N) for b (G, N); x = 0 outside the tail adds nothing."""
    return torch.log1p(-b.unsqueeze(1) * excess).sum(1) / length


def _order_statistics(k: Tensor, sigma: Tensor, length: Tensor, num_tail: int) -> Tensor:
    """The fitted distribution's quantiles (M, N) at (j - 1/2)/n."""
    number = torch.arange(num_tail, dtype=torch.float64, device=k.device).unsqueeze(1) - (num_tail - length) + 0.5
    exponential = -torch.log1p(-(number / length).clamp(min=0))
    small = k.abs() < torch.finfo(torch.float64).eps
    return sigma * torch.where(small, exponential, torch.expm1(k * exponential) / torch.where(small, 1.0, k))
