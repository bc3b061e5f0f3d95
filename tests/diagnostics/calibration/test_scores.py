"""The p-values of mean and spread of the scores: ranks among sets that chance makes, uniform for exact posteriors."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

from probvae.diagnostics.calibration.scores import exchanged_sums, mean_p_value, num_exchanges, spread_p_value


def p_values(scores: Tensor, num_sets: int = 499) -> tuple[float, float]:
    sums = exchanged_sums(scores, num_sets)
    return mean_p_value(sums, scores.shape[1]), spread_p_value(sums, scores.shape[1])


def test_sums_are_of_the_truth_and_then_of_scores_that_belong_to_the_datum() -> None:
    scores = torch.randn(4, 6, 2).double() + 100 * torch.arange(6).double()[:, None]
    sums = exchanged_sums(scores, 300)
    assert_close(sums[0], torch.stack([scores[0].sum(0), scores[0].square().sum(0)]))
    assert sums.shape == (301, 2, 2)
    assert sums[:, 0].min() >= scores.min(0).values.sum(0).min()
    assert sums[:, 0].max() <= scores.max(0).values.sum(0).max()
    # the mean and variance of a choice of one of four scores, datum by datum
    assert ((sums[1:, 0].mean(0) - scores.mean(0).sum(0)).abs() < 5 * (sums[1:, 0].var(0) / 300).sqrt()).all()
    assert_close(sums[1:, 0].var(0), scores.var(0, correction=0).sum(0), rtol=0.5, atol=0)


DRAWS = {
    "normal": torch.distributions.Normal(0.0, 1.0),
    "skewed": torch.distributions.Gamma(0.5, 1.0),
    "heavy tails": torch.distributions.StudentT(3.0),
    "two points": torch.distributions.Categorical(torch.ones(2)),
}


@pytest.mark.parametrize("num", [25, 200])
@pytest.mark.parametrize("kind", DRAWS)
def test_p_values_are_uniform_under_exchange_and_never_zero(kind: str, num: int) -> None:
    """Each datum has a distribution of its own; the spread had p = 0 here when its distribution was approximated."""
    torch.manual_seed(5)
    repetitions, found = 300, []
    for _ in range(repetitions):
        size = torch.rand(num, 1) * 3 + 0.1
        found.append(p_values(DRAWS[kind].sample((31, num, 2)).double() * size + size, 199))
    p = np.array(found)
    assert p.min() > 0
    for column in p.T:
        assert abs((column < 0.05).mean() - 0.05) < 4 * math.sqrt(0.05 * 0.95 / repetitions)
        assert stats.kstest(column, "uniform", alternative="greater").pvalue > 1e-3


def test_the_mean_does_not_see_the_width() -> None:
    torch.manual_seed(1)
    draws, z = torch.randn(50, 500, 1), torch.randn(500, 1)
    assert p_values(torch.cat([z[None] + 0.3, draws]), 1999)[0] < 1e-4
    means, spreads = zip(
        *(p_values(torch.cat([1.4 * torch.randn(1, 200, 1), draws[:, :200]])) for _ in range(200)), strict=True
    )
    assert max(spreads) < 0.01
    assert abs(np.mean(np.array(means) < 0.05) - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 200)


def test_how_many_sets() -> None:
    assert [num_exchanges(100, 2), num_exchanges(2000, 2), num_exchanges(2000, 64)] == [1999, 1999, 499]
