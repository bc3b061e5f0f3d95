"""Extreme data, sizes, weights and options: finite numbers, or a message that says what is wrong."""

import pytest

from tests.faults.extremes import (
    EXTREMES,
    MESSAGE,
    NUMBERS,
    RIGHT,
    Case,
    all_cases,
    extremes,
    guides,
    likelihoods,
    run_case,
)

# of every kind one: data, an outlier, a size, missing entries, an option, first weights
KINDS = (
    "columns of scales 1e-6 to 1e6",
    "an outlier of 1e18",
    "D = 1, N = 2, d = 8",
    "missing entries and an outlier",
    "a learning rate of 1e30 in float64",
    "encoder weights of 1e18",
)

# what once ended in a traceback
FOUND = (
    Case("all of scale 1e100 in float64", "gaussian", "semi-amortized"),
    Case("a learning rate of 1e30 in float64", "gaussian", "diagonal"),
    Case("a learning rate of 1e30 in float64", "student-t", "diagonal"),
    Case("a learning rate of 1e30", "gaussian", "low-rank"),
    Case("missing entries", "gaussian", "free"),
    Case("a held-out outlier of 1e18", "poisson", "semi-amortized"),
)


def some(names: list[str], number: int) -> str:
    return names[number % len(names)]


def wrong(cases: list[Case], ledger: bool = False) -> dict[Case, str]:
    outcomes = {case: run_case(case, ledger) for case in cases}
    bad = {case: outcome for case, outcome in outcomes.items() if outcome.verdict not in RIGHT}
    return {case: f"{outcome.verdict}: {outcome.detail}" for case, outcome in bad.items()}


def test_there_are_fifty() -> None:
    assert len(EXTREMES) >= 50
    assert set(KINDS) <= set(EXTREMES)


@pytest.mark.parametrize("likelihood", likelihoods())
def test_every_likelihood(likelihood: str) -> None:
    assert not wrong([Case(some(list(KINDS), likelihoods().index(likelihood)), likelihood, "diagonal")])


@pytest.mark.parametrize("guide", guides())
def test_every_guide(guide: str) -> None:
    assert not wrong([Case(some(list(KINDS), guides().index(guide)), "gaussian", guide)])


@pytest.mark.parametrize("case", FOUND, ids=", ".join)
def test_what_was_found(case: Case) -> None:
    assert not wrong([case])


def test_held_out_data_without_a_ledger() -> None:
    """Their bound is finite; the search for the best member of the family overflows."""
    assert not wrong([Case("a held-out outlier of 1e18", "gaussian", "low-rank")], ledger=True)


def test_ordinary_numbers_are_no_message() -> None:
    """The check could not fail if nothing ever came to numbers."""
    assert run_case(Case("a constant column", "gaussian", "diagonal")).verdict == NUMBERS
    refused = run_case(Case("infinity", "gaussian", "diagonal"))
    assert refused.verdict == MESSAGE
    assert "1 of 24 rows contain NaN or infinity" in refused.detail


@pytest.mark.slow
@pytest.mark.parametrize("guide", guides())
def test_every_pair(guide: str) -> None:
    """Each pair of a likelihood and a guide meets another extreme, so that each extreme is met too."""
    names = list(EXTREMES)
    cases = [Case(some(names, number), *pair[1:]) for number, pair in enumerate(all_cases(["D = 1"]))]
    assert not wrong([case for case in cases if case.guide == guide], ledger=True)


@pytest.mark.slow
def test_the_count_is_that_of_the_cases() -> None:
    result = extremes(1, seed=0, workers=1)
    assert result["num"] == sum(result["counts"].values()) == len(likelihoods()) * len(guides())
    assert result["wrong"] == {}
