"""The batched Pareto fit against ArviZ's, column by column."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from probvae.errors import ArgumentError, ShapeError
from probvae.inference.evidence.pareto_smoothing import good_pareto_k, pareto_smooth
from tests.support.arviz_psis import OLD_ARVIZ, arviz_psislw


def normalised(log_weights: torch.Tensor) -> torch.Tensor:
    return log_weights - log_weights.logsumexp(0)


def heavy(num_samples: int, num_data: int, seed: int) -> torch.Tensor:
    """Log weights with tails from bounded to k = 2, and constants of any size."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(num_samples, num_data, generator=generator, dtype=torch.float64)
    k = torch.linspace(-0.97, 2.0, num_data, dtype=torch.float64)
    return torch.log1p((uniform**-k - 1) / k) + 50 * torch.randn(num_data, generator=generator, dtype=torch.float64)


# ArviZ 1.x rounds the length of the tail down, and 0.23 up: for these numbers they agree
@pytest.mark.parametrize("num_samples", [50, 100, 400, 2500, *([25, 1000, 4000] if OLD_ARVIZ else [])])
def test_agrees_with_arviz(num_samples: int) -> None:
    log_w = heavy(num_samples, 40, seed=num_samples)
    ours, (smoothed, k) = pareto_smooth(log_w), arviz_psislw(log_w)
    finite = np.isfinite(k)
    assert finite.sum() >= 35
    assert_close(ours.pareto_k.numpy()[finite], k[finite], rtol=0, atol=1e-6)
    assert_close(normalised(ours.log_weights).numpy()[:, finite], smoothed[:, finite], rtol=0, atol=1e-6)


@pytest.mark.skipif(not OLD_ARVIZ, reason="ArviZ 1.x fits a tail of equal weights too")
def test_agrees_with_arviz_where_weights_are_tied() -> None:
    log_w = heavy(400, 30, seed=5).round()
    ours, (smoothed, k) = pareto_smooth(log_w), arviz_psislw(log_w)
    finite = np.isfinite(k)
    assert 10 < finite.sum() < 30
    assert_close(ours.pareto_k.numpy()[finite], k[finite], rtol=0, atol=1e-6)
    # which of several equal weights gets which of their smoothed values is left to the sorting
    ordered = normalised(ours.log_weights).sort(0).values.numpy()
    assert_close(ordered[:, finite], np.sort(smoothed, axis=0)[:, finite], rtol=0, atol=1e-6)


def test_draws_without_density_are_no_tail() -> None:
    log_w = heavy(400, 6, seed=1)
    log_w[::3] = -math.inf
    ours, (_, k) = pareto_smooth(log_w), arviz_psislw(log_w)
    assert_close(ours.pareto_k.numpy(), k, rtol=0, atol=1e-6)


def test_constant_weights_are_perfect_and_a_single_large_one_is_the_worst() -> None:
    constant = torch.full((200, 1), -731.25, dtype=torch.float64)
    single = constant.clone()
    single[17] += 3.0
    noisy = constant + 1e-9 * torch.randn(200, 1, dtype=torch.float64)
    result = pareto_smooth(torch.cat([constant, single], 1))
    assert result.pareto_k.tolist() == [-math.inf, math.inf]
    assert_close(result.log_weights[:, :1], constant)
    assert pareto_smooth(noisy, tolerance=1e-7).pareto_k.item() == -math.inf
    assert math.isfinite(pareto_smooth(noisy).pareto_k.item())


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    log_w = heavy(300, 20, seed=2)
    whole = pareto_smooth(log_w)
    monkeypatch.setattr("probvae.inference.evidence.pareto_smoothing._BLOCK", 1)
    assert_close(pareto_smooth(log_w).log_weights, whole.log_weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("num_samples", "k"), [(100, 0.5), (320, 0.6), (1000, 2 / 3), (2200, 0.7), (10_000, 0.7)])
def test_thresholds(num_samples: int, k: float) -> None:
    assert good_pareto_k(num_samples) == pytest.approx(k, abs=5e-3)


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(ShapeError, match="S >= 25 draws"):
        pareto_smooth(torch.zeros(24, 3))
    with pytest.raises(ArgumentError, match="num_samples"):
        good_pareto_k(1)
