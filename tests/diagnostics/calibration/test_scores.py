"""The p-value of a mean under exchange with the draws: exact for chi-squared values, uniform for others."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from probvae.diagnostics.calibration.scores import exchange_p_value, null_moments


def test_moments_are_those_of_scipy() -> None:
    values = torch.randn(30, 4, 2, dtype=torch.float64).exp()
    moments = null_moments(values)
    for order, found in ((2, moments.variance), (3, moments.third)):
        expected = torch.as_tensor(stats.moment(values.numpy(), order, axis=0))
        assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
    assert_close(moments.mean, values.mean(0), rtol=0, atol=1e-14)


def test_squared_normal_scores_are_chi_squared() -> None:
    """With the moments of chi^2_1 (1, 2, 8), the p-value is that of chi^2_N, far into the tail."""
    num = 50
    for total in (60.0, 20.0, 150.0):
        observed = torch.full((num, 1), total / num, dtype=torch.float64)
        one = torch.ones(num, 1, dtype=torch.float64)
        p = exchange_p_value(observed, type(null_moments(one[None]))(one, 2 * one, 8 * one))
        chi2 = stats.chi2(num)
        assert p == pytest.approx(2 * min(chi2.sf(total), chi2.cdf(total)), rel=1e-9)


@pytest.mark.parametrize("power", [1, 2])
def test_p_value_is_uniform_under_exchange(power: int) -> None:
    """Also for draws that are skewed and heavy-tailed."""
    p = []
    for _ in range(300):
        values = torch.distributions.StudentT(6.0).sample((31, 100, 2)).add(0.5).pow(power).double()
        p.append(exchange_p_value(values[0], null_moments(values)))
    assert abs(np.mean(np.array(p) < 0.05) - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 300)
    assert stats.kstest(p, "uniform", alternative="greater").pvalue > 1e-3


def test_wrong_mean_and_width_are_seen() -> None:
    draws, z = torch.randn(50, 500, 1), torch.randn(500, 1)
    for truth in (z + 0.3, 1.3 * z):
        values = torch.cat([truth[None], draws])
        smallest = min(exchange_p_value(v[0], null_moments(v)) for v in (values, values.square()))
        assert smallest < 1e-4
