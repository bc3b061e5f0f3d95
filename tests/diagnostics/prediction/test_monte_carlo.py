"""p-values by rank, and the two-sample test: their formulas, their level, and what they see."""

import math

import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist

from probvae.diagnostics.prediction.monte_carlo import _beyond, family_p_value, rank_p_values
from probvae.diagnostics.usage.two_sample import energy_distances, two_sample_test


def test_rank_p_value_is_the_count() -> None:
    rows = torch.randn(200, 3).round(decimals=1)
    for k in range(3):
        below = sum(float(row) <= float(rows[0, k]) for row in rows[:, k])
        above = sum(float(row) >= float(rows[0, k]) for row in rows[:, k])
        assert rank_p_values(rows)[k].item() == pytest.approx(min(1, 2 * min(below, above) / 200))


@pytest.mark.parametrize("two_sided", [True, False])
def test_family_p_value_is_uniform_whatever_the_statistics(two_sided: bool) -> None:
    """Statistics of very different shape, dependent on each other, and one that is constant."""
    p_values = []
    for _ in range(400):
        first = torch.randn(100)
        rows = torch.stack([first, first.exp(), torch.rand(100) ** 8, torch.full((100,), 2.0)], dim=1)
        p_values.append(family_p_value(rows, two_sided=two_sided))
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_family_p_value_beyond_all_rows_falls_with_the_distance() -> None:
    rows = torch.randn(1000, 8)
    for largest, smallest, value in ((1e-3, 1e-5, 4.5), (1e-5, 1e-9, 9.0)):
        rows[0, 5] = -value
        assert smallest < family_p_value(rows) <= largest
    assert family_p_value(rows, two_sided=False) > 0.05
    assert family_p_value(torch.zeros(50, 2)) == 1.0


def test_power_law_beyond_all_rows() -> None:
    """Scores of a Pareto distribution, of which the tail is known: (x / 1)^-3."""
    others = torch.rand(200_000, dtype=torch.float64) ** (-1 / 3)
    found = _beyond(torch.tensor(100.0), others)
    # log p = log(k / B) - log(x / u) / xi, and xi has a relative error of 1 / sqrt(k)
    error = 3 * math.log(100 / 200_000 ** (1 / 6)) / math.sqrt(math.isqrt(200_000))
    assert abs(math.log(found) - math.log(1e-6)) < 4 * error


def test_energy_distance_by_hand() -> None:
    z = torch.randn(15, 3, dtype=torch.float64)
    members = torch.stack([torch.randperm(15) < 6 for _ in range(4)]).double()
    found = energy_distances(z, members / 6 - (1 - members) / 9)
    for row, energy in zip(members.bool(), found, strict=True):
        a, b = z[row].numpy(), z[~row].numpy()
        expected = 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()
        assert energy.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("paired", [True, False])
def test_two_sample_test_holds_its_level(paired: bool) -> None:
    """Heavy tails, dependence and ties; pairs that are alike only within each pair."""
    p_values = []
    for _ in range(200):
        mean = 5 * torch.randn(30, 1) if paired else torch.zeros(30, 1)
        first, second = (mean + torch.distributions.StudentT(1.0).sample((30, 1)) * torch.ones(2) for _ in range(2))
        p_values.append(two_sample_test(first.round(), second.round(), paired=paired, num_permutations=99).p_value)
    assert stats.binomtest(sum(p <= 0.05 for p in p_values), 200, 0.05).pvalue > 1e-3
    assert stats.kstest(p_values, "uniform", alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("shift", ("mean", (2,))),
        ("scale", ("standard deviation", (2,))),
        ("shape", ("kurtosis", (2,))),
        ("correlation", ("correlation", (0, 2))),
    ],
)
def test_what_it_sees(what: str, expected: tuple[str, tuple[int, ...]]) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        z, prior = torch.randn(400, 3), torch.randn(400, 3)
        if what == "shift":
            z[:, 2] += 0.6
        elif what == "scale":
            z[:, 2] *= 1.6
        elif what == "shape":  # two modes, with the mean and the variance of the normal
            z[:, 2] = 0.1 * z[:, 2] + math.sqrt(1 - 0.01) * z[:, 2].sign()
        else:
            z[:, 2] = 0.6 * z[:, 0] + math.sqrt(1 - 0.36) * z[:, 2]
        result = two_sample_test(z, prior, num_permutations=199)
        assert result.p_value <= 1 / 200
        assert result.difference == expected
