"""p-values by rank: the observed statistic among the same statistic of draws with nothing wrong."""

import math

import torch
from torch import Tensor

# At a distance of one begins the outermost twentieth of a statistic, whatever its own distribution is.
_TAIL = 0.025
_LEAST_TAIL = 10  # scores, from which a law can be read
_SMALLEST = 1e-300  # a p-value is never zero


def rank_p_values(statistics: Tensor) -> Tensor:
    r"""Two-sided p-value of the first row among all rows, for each column: (K,) for ``statistics`` (B + 1, K).

    .. math:: p_k = \min\Big(1, \tfrac{2}{B + 1} \min\big(\#\{b : T_{bk} \le T_{0k}\},
              \#\{b : T_{bk} \ge T_{0k}\}\big)\Big)

    the observed row counted on both sides, so that p is uniform or larger where all rows are exchangeable.
    Source: Besag and Clifford (1989), "Generalized Monte Carlo significance tests".

    >>> rank_p_values(torch.tensor([[9.0], [1.0], [2.0], [3.0]]))
    tensor([0.5000])
    """
    below = (statistics <= statistics[0]).double().mean(0)
    above = (statistics >= statistics[0]).double().mean(0)
    return (2 * torch.minimum(below, above)).clamp(max=1.0).to(statistics)


def family_p_value(statistics: Tensor, *, two_sided: bool = True, light_tails: bool = False) -> float:
    r"""One p-value of the first row among all rows for all K columns of ``statistics`` (B + 1, K) together.

    Each statistic becomes its distance from the median of all rows, in units of the distance of the 2.5 % quantile on
    the same side; a row's score is the largest distance (upwards only, unless ``two_sided``), and the p-value the rank
    of the observed score. All rows are treated alike, so it is uniform (or larger, where scores are equal) whenever
    the rows are exchangeable, with no correction for the number of statistics.

    Where the observed score is beyond all others, the rank says 1 / (B + 1) and no more. Its p-value is then what a
    power law through the largest scores gives there, if that is less: under exchangeability this happens with
    probability 1 / (B + 1), however wrong the power law is, so that no level above 1 / (B + 1) is touched. For
    statistics with ``light_tails``, as sums of many terms have them, an exponential takes the place of the power law.

    Source: Westfall and Young (1993), "Resampling-Based Multiple Testing", section 2.5, with scores for p-values;
    Hill (1975), "A simple general approach to inference about the tail of a distribution".

    >>> family_p_value(torch.tensor([30.0, *range(39)]).unsqueeze(1))
    0.475
    """
    values = statistics.double()
    low, centre, high = torch.quantile(values, torch.tensor([_TAIL, 0.5, 1 - _TAIL]).to(values), dim=0)
    above = _ratio(values - centre, high - centre)
    below = _ratio(centre - values, centre - low)
    score = (torch.maximum(above, below) if two_sided else above).max(1).values
    rank = int((score >= score[0]).sum())
    p_value = rank / len(score)
    return p_value if rank > 1 else min(p_value, _beyond(score[0], score[1:], light_tails))


def _beyond(score: Tensor, others: Tensor, light_tails: bool = False) -> float:
    """P(score or more) by a law through the largest of the ``others``, above zero; 1 where these are too few."""
    number = math.isqrt(len(others))
    largest = others.topk(number).values
    if number < _LEAST_TAIL or largest[-1] <= 0 or largest[0].isinf():
        return 1.0
    if light_tails:
        excess = float((largest - largest[-1]).mean().clamp(min=1e-12))
        return max(_SMALLEST, number / len(others) * math.exp(-float(score - largest[-1]) / excess))
    exponent = 1 / float((largest / largest[-1]).log().mean().clamp(min=1e-3))
    return max(_SMALLEST, number / len(others) * float(score / largest[-1]) ** -exponent)


def _ratio(distance: Tensor, unit: Tensor) -> Tensor:
    """distance / unit; where nearly all rows are equal, they say nothing, and what differs from them all."""
    far = torch.where(distance > 0, torch.inf, -torch.inf).to(distance)
    return torch.where(unit > 0, distance / unit.where(unit > 0, torch.ones_like(unit)), far)
