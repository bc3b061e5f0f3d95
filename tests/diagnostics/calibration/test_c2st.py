"""The classifier's accuracy against 1/2 + TV / 2, and its p-value."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from probvae.diagnostics.calibration.c2st import c2st, paired_c2st
from probvae.errors import DataError, ShapeError

BEST = [
    ((0.0, 1.0), 0.5),
    ((0.5, 1.0), 0.59871),
    ((1.0, 1.0), 0.69146),
    ((2.0, 1.0), 0.84134),
    ((0.0, 0.8), 0.55377),
    ((0.0, 0.5), 0.66134),
]


@pytest.mark.parametrize(("other", "accuracy"), BEST)
def test_accuracy_is_half_plus_half_the_total_variation(other: tuple[float, float], accuracy: float) -> None:
    p, q = torch.randn(20_000, 1), Normal(*other).sample((20_000, 1))
    found = c2st(p, q)
    assert found.num_judged == 20_000
    assert found.accuracy == pytest.approx(accuracy, abs=0.02)
    assert (found.p_value < 1e-6) == (accuracy > 0.5)


def test_correlation_is_seen() -> None:
    z = torch.randn(4000, 2, dtype=torch.float64)
    other = torch.randn(4000, 2, dtype=torch.float64) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]], dtype=torch.float64)
    assert c2st(z, other).p_value < 1e-10


def test_p_value_of_equal_distributions() -> None:
    p = np.array([c2st(torch.randn(100, 2), torch.randn(100, 2)).p_value for _ in range(200)])
    assert (p < 0.05).mean() < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 200)
    assert stats.kstest(p, "uniform", alternative="greater").pvalue > 1e-3


def test_p_value_of_equal_pairs() -> None:
    p = np.array([paired_c2st(torch.randn(200, 3), torch.randn(200, 3)).p_value for _ in range(200)])
    assert stats.kstest(p, "uniform", alternative="greater").pvalue > 1e-3


def test_pairs_are_told_apart_as_often_as_can_be() -> None:
    """With the log ratio among the features, the best guess is the larger one: Phi(1 / sqrt 2) for a shift of one."""
    x = 5 * torch.randn(20_000, 1)
    found = paired_c2st(torch.randn(20_000, 1) + 1 + x, torch.randn(20_000, 1) + x)
    assert found.accuracy == pytest.approx(stats.norm.cdf(1 / math.sqrt(2)), abs=0.02)


def test_infinite_features() -> None:
    inf = torch.full((40, 1), torch.inf)
    assert paired_c2st(inf, torch.zeros(40, 1)).accuracy == 1
    assert paired_c2st(inf, inf).p_value == 1


def test_wrong_samples() -> None:
    with pytest.raises(ShapeError, match="q: expected 2 columns"):
        c2st(torch.randn(9, 2), torch.randn(9, 3))
    with pytest.raises(DataError, match="p: 1 of 9 rows contain NaN"):
        c2st(torch.full((9, 1), torch.nan).index_fill(0, torch.arange(8), 0.0), torch.randn(9, 1))
