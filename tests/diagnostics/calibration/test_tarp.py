"""The toy of Lemos et al., and a prediction that is a regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.distributions import Normal
from torch.testing import assert_close

from probvae.diagnostics.calibration.ranks import uniformity_p_value
from probvae.diagnostics.calibration.tarp import area_to_curve, fit_prediction, tarp_levels


def toy_levels(factor: float) -> torch.Tensor:
    """Five dimensions, the posterior's standard deviations times ``factor``; as in the tests of the package sbi."""
    loc = 10 * torch.rand(500, 5) - 5
    scale = torch.exp(4 * torch.rand(500, 5) - 5)
    z, draws = Normal(loc, scale).sample(), Normal(loc, factor * scale).sample((100,))
    low, high = z.aminmax(dim=0)
    unit = [(value - low) / (high - low) for value in (z, draws)]
    return tarp_levels(*unit, references=torch.rand(500, 5))


def largest_deviation(levels: torch.Tensor) -> float:
    alpha = np.linspace(0, 1, 51)
    coverage = (levels.numpy()[:, None] <= alpha).mean(0)
    return float(np.abs(coverage - alpha).max())


def test_right_posterior_is_covered() -> None:
    levels = toy_levels(1.0)
    assert largest_deviation(levels) < 0.1
    assert abs(area_to_curve(levels)) < 0.02
    assert uniformity_p_value(levels) > 1e-3


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_wrong_width_is_seen_and_named(factor: float) -> None:
    levels = toy_levels(factor)
    assert largest_deviation(levels) > 0.1
    assert area_to_curve(levels) < -0.05 if factor < 1 else area_to_curve(levels) > 0.02
    assert uniformity_p_value(levels) < 1e-10


def test_area_is_the_integral() -> None:
    levels = torch.rand(40, dtype=torch.float64) ** 2
    alpha = np.linspace(0.5, 1, 200_001)
    coverage = np.searchsorted(np.sort(levels.numpy()), alpha, side="right") / 40
    assert area_to_curve(levels) == pytest.approx(np.trapezoid(coverage - alpha, alpha), abs=1e-5)


def test_prediction_is_a_ridge_regression() -> None:
    x = torch.randn(60, 4, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 3
    z = x @ torch.randn(4, 2, dtype=torch.float64) + torch.randn(60, 2, dtype=torch.float64)
    size = x.std(0, correction=0)
    ridge = Ridge(alpha=4.0).fit((x / size).numpy(), z.numpy())
    prediction = fit_prediction(z, x)
    expected = torch.as_tensor(ridge.predict((x / size).numpy()))
    assert_close(prediction(x), expected, rtol=0, atol=1e-10)
    assert_close(prediction.scale, (z - expected).square().mean(0).sqrt(), rtol=0, atol=1e-10)


def test_prediction_from_constant_and_missing_columns() -> None:
    z = torch.randn(50, 1)
    x = torch.cat([z, torch.ones(50, 1), torch.full((50, 1), torch.nan), z], dim=1)
    x[::2, 3] = torch.nan
    assert (fit_prediction(z, x)(x) - z).square().mean() < 0.1
