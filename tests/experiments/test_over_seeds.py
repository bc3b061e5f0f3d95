"""Errors of several seeds: by hand, their coverage, and in the table of a sweep."""

import math

import pytest
import torch

from probvae.experiments.compare import Entry, compare
from probvae.experiments.over_seeds import combined, seed_groups


def entry(prior: str, seed: int, elbo: torch.Tensor, held_out: str) -> Entry:
    recipe = {"model": {"prior": {"name": prior}}, "training": {"seed": seed}, "data": {"source": "x"}}
    gap = {"total": {"value": float(elbo.var()), "standard_error": 0.1}}
    return Entry(f"{prior}-{seed}", recipe, {"gap": gap}, elbo, None, "all", held_out, 3, "density")


def draws(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("same", [True, False])
def test_groups_by_hand(same: bool) -> None:
    x = draws(0, 2, 3, 40)
    entries = [
        entry(prior, seed, x[number, seed] + number, "held out" if same else f"held out {seed}")
        for number, prior in enumerate(("a", "b"))
        for seed in range(3)
    ]
    groups = seed_groups(compare(entries, baseline="a-1"))
    assert [group.label for group in groups] == ["a", "b"]
    for number, group in enumerate(groups):
        means = x[number].mean(1) + number
        of_data = (x[number].var(1) / 40).mean() / (1 if same else 3)
        got = group.means["elbo"]
        assert got.value == pytest.approx(float(means.mean()))
        assert got.standard_error == pytest.approx(float((means.var() / 3 + of_data).sqrt()))
        assert group.means["gap"].num_seeds == 3
        assert "evidence" not in group.means
    assert not groups[0].differences
    delta = x[1] - x[0] + 1
    got = groups[1].differences["elbo"]
    assert got.value == pytest.approx(float(delta.mean()))
    of_data = (delta.var(1) / 40).mean() / (1 if same else 3)
    assert got.standard_error == pytest.approx(float((delta.mean(1).var() / 3 + of_data).sqrt()))
    assert groups[1].as_data()["seeds"] == [0, 1, 2]


def test_single_seeds_make_no_group() -> None:
    entries = [entry("a", 0, draws(1, 5), "h"), entry("b", 1, draws(2, 5), "h")]
    assert seed_groups(compare(entries)) == []


def test_errors_cover_what_seed_and_data_vary() -> None:
    """Fits with a seed's own effect of 0.3 and data of standard deviation 2: within two errors for 90 % or more."""
    effects, data, inside = 0.3 * draws(3, 1000, 4), 2 * draws(4, 1000, 100), 0
    for effect, values in zip(effects, data, strict=True):
        error = float(values.std()) / 10
        found = combined([float(values.mean() + e) for e in effect], [error] * 4, same_data=True)
        inside += abs(found.value) <= 2 * found.standard_error
        assert found.standard_error >= error
    assert inside >= 900
    assert math.isclose(combined([1.0, 1.0], [0.2, 0.2], same_data=False).standard_error, 0.2 / math.sqrt(2))
