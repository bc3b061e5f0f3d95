r"""Standard errors of log mean w that cover: the truth is within two of them for about 95 of 100 data.

The delta method's sd(w) / (mean(w) \sqrt S) is computed from the weights that were drawn. Where weights have heavy
tails, most of what is missing in their mean stands in weights that were not drawn, and that error is too small: with
the best diagonal guide of a linear-Gaussian model of ten dimensions the truth is within two of them for 59 % of the
data. ``benchmarks/evidence_errors.py`` measures how often it is for what stands here.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from probvae.inference.evidence.pareto_smoothing import LEAST_SAMPLES, LOG_TINY, fit_pareto, tail_length

# Above this shape the mean that a fitted tail has says nothing: it grows without bound as k goes to one.
_LARGEST_SHAPE = 0.9
# Weights with a shape k+ below this have a variance that the jackknife sees.
_LEAST_SHAPE = 0.55
# Variances of log w above this overflow in the log-normal's second moment, whose error is then hundreds of nats anyway
_LARGEST_VARIANCE = 600.0


class WeightSums(NamedTuple):
    """Sums over S weights, each (N,) in float64, and ``top`` (M + 1, N), the largest log weights, in rising order.

    ``log_sum`` is log of the sum of w, ``log_squares`` of w^2; ``mean`` and ``squares`` are sums over log w: its mean,
    and its squared distances from it.
    """

    num_samples: int
    log_sum: Tensor
    log_squares: Tensor
    mean: Tensor
    squares: Tensor
    top: Tensor

    @property
    def ess(self) -> Tensor:
        """(sum w)^2 / sum w^2, (N,)."""
        return torch.exp(2 * self.log_sum - self.log_squares)

    @property
    def log_mean(self) -> Tensor:
        """log mean w (N,), in nats."""
        return self.log_sum - math.log(self.num_samples)


def summed(blocks: Iterable[Tensor], num_samples: int) -> WeightSums:
    """The sums over ``blocks`` of log weights (s, N), which have ``num_samples`` rows in all."""
    num_top = num_samples if num_samples < LEAST_SAMPLES else tail_length(num_samples) + 1
    total: WeightSums | None = None
    for block in blocks:
        part = _sums(block.double(), num_top)
        total = part if total is None else _joined(total, part, num_top)
    assert total is not None
    return total


def _sums(log_w: Tensor, num_top: int) -> WeightSums:
    mean = log_w.mean(0)
    top = log_w.topk(min(num_top, len(log_w)), dim=0).values.flip(0)
    return WeightSums(
        len(log_w),
        torch.logsumexp(log_w, 0),
        torch.logsumexp(2 * log_w, 0),
        mean,
        (log_w - mean).square().sum(0),
        top,
    )


def _joined(a: WeightSums, b: WeightSums, num_top: int) -> WeightSums:
    number, top = a.num_samples + b.num_samples, torch.cat([a.top, b.top])
    shift = (b.mean - a.mean) * (b.num_samples / number)
    # The squared distances of two samples add up as in Chan, Golub and LeVeque (1983).
    squares = a.squares + b.squares + (b.mean - a.mean) * shift * a.num_samples
    return WeightSums(
        number,
        torch.logaddexp(a.log_sum, b.log_sum),
        torch.logaddexp(a.log_squares, b.log_squares),
        a.mean + shift,
        squares,
        top.topk(min(num_top, len(top)), dim=0).values.flip(0),
    )


def log_mean_error(sums: WeightSums) -> Tensor:
    r"""The standard error (N,) of log mean w, in nats; NaN for a single weight.

    .. math:: \mathrm{se}^2 = \mathrm{jackknife}^2 + \Big( \log \frac{\sum_{\text{body}} w + M E_{k^+}[w_{\text{tail}}]}
              {\sum w} \Big)_+^2

    The first term is the jackknife of log mean w. The second is what the mean lacks where the M largest weights are a
    sample of a Pareto tail with the fitted scale and a shape k+ one standard error above the fitted one; it is left out
    where k+ is below 0.55, because the jackknife is right for weights with a variance. Where k+ is above one, the
    weights may have no mean at all by their tail, and the error is at least that of a log-normal of the same variance
    (with its bias). The same is taken for fewer than 25 weights, which have no tail to speak of, times the factor by
    which Student's quantile is above the normal one.

    Source: Efron and Stein (1981), "The jackknife estimate of variance"; Vehtari et al. (2024), arXiv:1507.02646, for
    the tail; Fenton (1960), "The sum of log-normal probability distributions in scatter transmission systems".

    >>> log_w = torch.randn(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 10
    >>> log_mean_error(summed([log_w], 1000)).round(decimals=4)  # sd / sqrt(S)
    tensor([0.0032, 0.0031], dtype=torch.float64)
    """
    number = sums.num_samples
    if number == 1:
        return torch.full_like(sums.log_sum, math.nan)
    jackknife = _jackknife(sums)
    if number < LEAST_SAMPLES:
        return torch.fmax(jackknife, _log_normal(sums)) * two_sigma_factor(number - 1)
    shape, missing = _missing_tail(sums)
    error = (jackknife.square() + missing.square()).sqrt()
    return torch.where(shape > 1, torch.fmax(error, _log_normal(sums)), error)


def two_sigma_factor(degrees: int) -> float:
    """By what a standard error of so many ``degrees`` of freedom is multiplied, so that two of them are 95.45 %.

    >>> round(two_sigma_factor(15), 2)
    1.09
    """
    from scipy import stats

    return float(stats.t.ppf(stats.norm.cdf(2.0), degrees)) / 2


def _jackknife(sums: WeightSums) -> Tensor:
    """The jackknife error of log mean w; the weights below the tail to first order.

    Without weight i log mean w changes by log(1 - y_i), where y_i is its share of the sum, less 1/S, over 1 - 1/S.
    """
    number = sums.num_samples
    share = (sums.top - sums.log_sum).exp()
    others = number - len(share)
    rest = (1 - share.sum(0)) if others else torch.zeros_like(sums.log_sum)
    rest_squares = (sums.log_squares - 2 * sums.log_sum).exp() - share.square().sum(0)
    rest_squares = (rest_squares - 2 * rest / number + others / number**2).clamp(min=0) if others else rest
    y = ((share - 1 / number) * number / (number - 1)).clamp(max=1 - 1e-12)
    change = torch.log1p(-y)
    mean = (change.sum(0) - (rest - others / number)) / number
    squares = change.square().sum(0) + rest_squares - number * mean.square()
    return (squares.clamp(min=0) * (number - 1) / number).sqrt()


def _log_normal(sums: WeightSums) -> Tensor:
    """The root mean square of log mean w - log E[w] for log-normal weights with the variance of these log w."""
    variance = (sums.squares / (sums.num_samples - 1)).clamp(max=_LARGEST_VARIANCE)
    of_log_mean = torch.log1p(torch.expm1(variance) / sums.num_samples)
    return (of_log_mean + (of_log_mean / 2).square()).sqrt()


def _missing_tail(sums: WeightSums) -> tuple[Tensor, Tensor]:
    """k+ (N,), and by how many nats a tail of that shape has a larger mean than the weights that were drawn."""
    top = sums.top - sums.top[-1]
    cutoff = top[0].clamp(min=LOG_TINY)
    above = top[1:]
    in_tail = above > cutoff
    length, start = in_tail.sum(0), cutoff.exp()
    excess = torch.where(in_tail, start * torch.expm1(above - cutoff), 0.0)
    # Rounding is no tail, and a tail over more than float64 holds has no mean.
    flat = -cutoff <= 1e-6
    fits = (length == len(above)) & ~flat
    shape, missing = torch.where(flat, -math.inf, torch.full_like(start, math.inf)), torch.zeros_like(start)
    if not fits.any():
        return shape, missing
    k, scale = fit_pareto(excess[:, fits], length[fits])
    upper = k + (1 + k) / math.sqrt(len(above))
    expected = len(above) * (scale / (1 - upper.clamp(max=_LARGEST_SHAPE)))
    total = (sums.log_sum - sums.top[-1])[fits].exp()
    lacking = torch.log1p((expected - excess[:, fits].sum(0)) / total).clamp(min=0)
    shape[fits], missing[fits] = upper, torch.where(upper > _LEAST_SHAPE, lacking, 0.0)
    return shape, missing
