"""Ranks are exactly uniform under the null, the test's p-value too, and the band covers what it says."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from probvae.diagnostics.calibration.ranks import (
    anderson_darling,
    anderson_darling_tail,
    ecdf_band,
    randomised_rank,
    uniformity_p_value,
)


def anderson_darling_by_hand(u: np.ndarray) -> float:
    """n times the integral of (F_n - u)^2 / (u (1 - u)), piece by piece in closed form."""
    n, ends = len(u), np.concatenate([[0.0], np.sort(u), [1.0]])

    def piece(a: float, b: float, f: float) -> float:
        # antiderivative of (f - u)^2 / (u (1 - u)) = f^2 / u + (1 - f)^2 / (1 - u) - 1
        left = f**2 * (math.log(b) - math.log(a)) if f else 0.0
        right = (1 - f) ** 2 * (math.log1p(-a) - math.log1p(-b)) if f < 1 else 0.0
        return left + right - (b - a)

    return n * sum(piece(a, b, k / n) for k, (a, b) in enumerate(itertools.pairwise(ends)))


def test_statistic_is_the_weighted_distance_of_the_ecdf() -> None:
    u = torch.rand(37, 2, dtype=torch.float64) ** 1.3
    for column in range(2):
        expected = anderson_darling_by_hand(u[:, column].numpy())
        assert anderson_darling(u)[column].item() == pytest.approx(expected, abs=1e-11)


def imhof(statistic: float, num_terms: int = 4000) -> float:
    """P(sum_j chi^2_1 / (j (j + 1)) > a) by Imhof's formula (1961) on the real axis, the last terms by their mean."""
    weight = 1 / (np.arange(1, num_terms + 1) * np.arange(2, num_terms + 2))
    rest = 1 / (num_terms + 1) - statistic

    def integrand(t: float) -> float:
        angle = 0.5 * (np.arctan(weight * t).sum() + rest * t)
        return np.sin(angle) / (t * np.exp(0.25 * np.log1p((weight * t) ** 2).sum()))

    return 0.5 + integrate.quad(integrand, 0, 400, limit=2000, epsabs=1e-9)[0] / np.pi


@pytest.mark.parametrize("statistic", [0.3, 2.49236716, 8.0])
def test_tail_is_that_of_a_sum_of_chi_squares(statistic: float) -> None:
    assert anderson_darling_tail(statistic) == pytest.approx(imhof(statistic), abs=3e-7)


@pytest.mark.parametrize(("statistic", "p_value"), [(1.93295783, 0.10), (2.49236716, 0.05), (3.8781250, 0.01)])
def test_critical_values_of_marsaglia_and_marsaglia(statistic: float, p_value: float) -> None:
    assert anderson_darling_tail(statistic) == pytest.approx(p_value, rel=1e-7)


def test_far_tail_against_the_chi_squares_that_it_is_made_of() -> None:
    """A^2 = sum_j Y_j^2 / (j (j + 1)): the first term alone is a lower bound, and gives the rate of the tail."""
    for statistic in (10.0, 30.0, 60.0):
        first = stats.chi2.sf(2 * statistic, 1)
        # far out, the others multiply it by prod_{j > 1} (1 - 2 / (j (j + 1)))^(-1/2) = 3^(1/2)
        assert anderson_darling_tail(statistic) == pytest.approx(first * math.sqrt(3), rel=0.6 / statistic)
    assert anderson_darling_tail(1e4) < 1e-40


def test_p_value_is_uniform_for_uniform_numbers() -> None:
    u = torch.rand(200, 600, dtype=torch.float64)
    p = np.array([uniformity_p_value(u[:, k]) for k in range(600)])
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert abs((p < 0.05).mean() - 0.05) < 4 * math.sqrt(0.05 * 0.95 / len(p))


def test_columns_are_judged_together() -> None:
    u = torch.rand(300, 3, dtype=torch.float64)
    u[:, 1] = u[:, 1].sqrt()
    assert uniformity_p_value(u) == pytest.approx(3 * uniformity_p_value(u[:, 1]), rel=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_randomised_ranks_are_uniform(ties: bool) -> None:
    values = torch.randint(3, (11, 20_000)) if ties else torch.randn(11, 20_000)
    u = randomised_rank(values[0].double(), values[1:].double())
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    assert ((u > 0) & (u < 1)).all()


def test_rank_of_the_smallest_and_the_largest() -> None:
    draws = torch.arange(9.0).unsqueeze(1)
    assert 0 < randomised_rank(torch.tensor([-1.0]), draws).item() < 0.1
    assert 0.9 < randomised_rank(torch.tensor([9.5]), draws).item() < 1
    assert 0.3 < randomised_rank(torch.tensor([2.5]), draws).item() < 0.4


@pytest.mark.parametrize("num_values", [100, 1000])
def test_band_covers_95_percent_of_uniform_samples(num_values: int) -> None:
    points = np.linspace(0, 1, 101)[1:-1]
    lower, upper = ecdf_band(num_values, points)
    u = np.sort(np.random.default_rng(4).uniform(size=(2000, num_values)), axis=1)
    ecdf = np.stack([np.searchsorted(row, points, side="right") for row in u]) / num_values
    inside = ((ecdf >= lower) & (ecdf <= upper)).all(axis=1)
    assert abs(inside.mean() - 0.95) < 0.015


def test_band_is_arvizs() -> None:
    """ArviZ 0.23 finds it by recursion; ours by simulation, for all versions of ArviZ."""
    band = pytest.importorskip("arviz.stats.ecdf_utils").ecdf_confidence_band
    points = np.linspace(0, 1, 21)[1:-1]
    for ours, theirs in zip(ecdf_band(200, points), band(200, points, points, prob=0.95), strict=True):
        assert np.abs(ours - theirs).max() < 2.5 / 200  # counts are whole numbers
