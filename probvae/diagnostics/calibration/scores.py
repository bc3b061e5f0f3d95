"""z-scores of the true z in the guide's standard deviations, and how often chance alone gives such scores."""

from typing import NamedTuple

import numpy as np
from torch import Tensor


class NullMoments(NamedTuple):
    """Mean, variance and third central moment of a value if it were one of the L + 1 at random, each (N, d)."""

    mean: Tensor
    variance: Tensor
    third: Tensor


def null_moments(values: Tensor) -> NullMoments:
    """The moments over the first dimension of ``values`` (L + 1, N, d): the truth's value and those of the draws.

    >>> null_moments(torch.tensor([0.0, 0.0, 3.0]).reshape(3, 1, 1)).third  # (-1, -1, 2): (-1 - 1 + 8) / 3
    tensor([[2.]])
    """
    mean = values.mean(0)
    offset = values - mean
    return NullMoments(mean, offset.square().mean(0), offset.pow(3).mean(0))


def exchange_p_value(observed: Tensor, null: NullMoments) -> float:
    r"""The two-sided p-value of the mean of ``observed`` (N, d) if the truth were one of the draws, Bonferroni over d.

    .. math:: T_j = \sum_n v_{nj}, \qquad
              v_{nj} \text{ one of the } L + 1 \text{ values of datum } n \text{ with probability } \tfrac1{L + 1}

    Where the truth is exchangeable with the draws, this is the distribution of T given all values. Its first three
    moments are known, and Pearson's type III with these moments is taken in its place: for the squared z-scores of
    normal posteriors, a chi-squared distribution, that is exact, where a t-test would be off tenfold in the tail.

    Source: Josse, Pagès and Husson (2008), "Testing the significance of the RV coefficient", section 3, for the
    approximation of a permutation distribution.

    >>> value = torch.tensor([[1.0], [-1.0]])
    >>> exchange_p_value(value, null_moments(torch.stack([value, -value])))
    1.0
    """
    from scipy.stats import pearson3

    total, mean, variance, third = (
        part.double().sum(0).cpu().numpy() for part in (observed, null.mean, null.variance, null.third)
    )
    scale = np.sqrt(np.maximum(variance, 1e-300))
    skew = third / scale**3
    z = (total - mean) / scale
    tails = np.minimum(pearson3.sf(z, skew), pearson3.cdf(z, skew))
    return float(min(1.0, 2 * len(z) * tails.min()))
