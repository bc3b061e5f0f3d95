"""Ranks of the truth among draws: uniform when the draws are from the right posterior."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probvae.foundation.checks import check_count

# The tail's integral: far enough for nine digits, and fine enough for statistics up to the largest
_STEP, _END, _LARGEST = 0.05, 200.0, 100.0
_NUM_ECDFS = 4000


def randomised_rank(value: Tensor, draws: Tensor) -> Tensor:
    r"""The rank of ``value`` (...) among ``draws`` (L, ...) as a number in (0, 1), in float64.

    .. math:: u = \frac{\#\{l: v_l < v\} + U \, (1 + \#\{l: v_l = v\})}{L + 1}, \qquad U \sim U(0, 1)

    Where value and draws are exchangeable, u is exactly uniform on (0, 1): for every L, and with ties.
    Source: Talts et al. (2018), "Validating Bayesian inference algorithms with simulation-based calibration",
    arXiv:1804.06788, theorem 1; the randomisation makes it continuous.

    >>> bool(randomised_rank(torch.tensor(2.5), torch.tensor([1.0, 2.0, 3.0])) > 0.5)
    True
    """
    below, ties = (draws < value).sum(0), (draws == value).sum(0)
    place = torch.rand(below.shape, dtype=torch.float64, device=below.device)
    u = (below + place * (1 + ties)) / (len(draws) + 1)
    return u.clamp(1e-15, 1 - 1e-15)  # the logarithms of u and 1 - u are to be finite


def uniformity_p_value(u: Tensor) -> float:
    """The p-value of Anderson and Darling's test for uniform ``u``: (N,), or (N, d) with Bonferroni's factor d.

    The test looks at the whole distribution, the tails included. Its p-value is that of large N, and within 1 % of
    the exact one for N >= 100.

    >>> uniformity_p_value(torch.linspace(0.01, 0.99, 99)) > 0.99
    True
    """
    columns = u.reshape(len(u), -1)
    smallest = min(anderson_darling_tail(float(value)) for value in anderson_darling(columns))
    return min(1.0, columns.shape[1] * smallest)


def worst_level(u: Tensor) -> tuple[float, float]:
    """The level a at which the share of ``u`` (N,) up to a is farthest from a, and that share.

    >>> worst_level(torch.tensor([0.4, 0.45, 0.5]).double())
    (0.5, 1.0)
    """
    ordered = u.double().sort().values
    above = torch.arange(1, len(u) + 1, device=u.device) / len(u)
    shares = torch.cat([above, above - 1 / len(u)])  # the step of the ECDF at a point has two ends
    place = int((shares - ordered.repeat(2)).abs().argmax())
    return float(ordered[place % len(u)]), float(shares[place])


def anderson_darling(u: Tensor) -> Tensor:
    r"""Anderson and Darling's distance of each column of ``u`` (N, d) from the uniform distribution, (d,).

    .. math:: A^2 = N \int_0^1 \frac{(F_N(u) - u)^2}{u (1 - u)} \, du
                  = -N - \frac1N \sum_{i=1}^N (2 i - 1) \left( \log u_{(i)} + \log(1 - u_{(N + 1 - i)}) \right)

    Source: Anderson and Darling (1954), "A test of goodness of fit".

    >>> anderson_darling(torch.tensor([[0.5]], dtype=torch.float64))  # 2 log 2 - 1
    tensor([0.3863], dtype=torch.float64)
    """
    u = u.double().sort(dim=0).values
    weight = 2 * torch.arange(1, len(u) + 1, device=u.device).unsqueeze(1) - 1
    return -len(u) - (weight * (u.log() + (-u.flip(0)).log1p())).sum(0) / len(u)


def anderson_darling_tail(statistic: float) -> float:
    r"""P(A^2 > a) for uniform numbers, for large N; a above 100 counts as 100 (4e-45).

    .. math:: P(A^2 > a) = \frac1{\pi} \int_0^\infty \operatorname{Re} \frac{M(s)\, e^{-s a}}{s} \, d\tau, \quad
              s = \sigma + i \tau, \quad M(s)^2 = \frac{-2 \pi s}{\cos(\frac{\pi}{2} \sqrt{1 + 8 s})}

    M is the moment generating function of A^2 = sum_j Y_j^2 / (j (j + 1)), Y_j standard normal. On the line at
    sigma, where M(s) e^{-s a} is smallest on the real axis, nothing cancels, however small the probability is.
    Source: Anderson and Darling (1952), "Asymptotic theory of certain goodness of fit criteria", equation 4.26.

    >>> round(anderson_darling_tail(2.492), 3)
    0.05
    """
    a = min(max(statistic, 1e-3), _LARGEST)
    sigma = max(0.3, 1 - 0.5 / a)  # the saddle point of the first term
    s = sigma + 1j * np.arange(0.0, _END, _STEP)
    squared = -2 * np.pi * s / np.cos(np.pi / 2 * np.sqrt(1 + 8 * s))
    # M is continuous along the line, and its root is followed from the real axis on
    moment = np.sqrt(np.abs(squared)) * np.exp(0.5j * np.unwrap(np.angle(squared)))
    values = (moment * np.exp(-s * a) / s).real
    return float(min(1.0, (values.sum() - values[0] / 2) * _STEP / np.pi))


def ecdf_band(
    num_values: int, points: NDArray[np.float64], prob: float = 0.95, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The band in which the ECDF of ``num_values`` uniform numbers lies, at all ``points`` (K,) at once.

    ``prob`` is the probability of that. At each point the band is a central interval of the binomial distribution, all
    of the same level, which is found by simulation. Returns the lower and the upper ends, (K,).
    Source: Säilynoja, Bürkner and Vehtari (2022), arXiv:2103.10522, algorithm 1.

    >>> lower, upper = ecdf_band(100, np.array([0.25, 0.5, 0.75]))
    >>> bool((lower < [0.25, 0.5, 0.75]).all() and (upper > [0.25, 0.5, 0.75]).all())
    True
    """
    from scipy.stats import binom

    check_count(num_values, "num_values")
    shares = np.diff(points, prepend=0.0, append=1.0)
    counts = np.random.default_rng(seed).multinomial(num_values, shares, _NUM_ECDFS)[:, :-1].cumsum(axis=1)
    below, above = binom.cdf(counts, num_values, points), binom.sf(counts - 1, num_values, points)
    level = np.quantile(np.minimum(below, above).min(axis=1), 1 - prob)
    lower, upper = binom.ppf(level, num_values, points), binom.isf(level, num_values, points)
    return lower / num_values, upper / num_values
