"""The nightly script counts every case, in its own processes and in real ones."""

import pytest

from benchmarks import fuzz
from tests.faults.running import KINDS, RIGHT


@pytest.mark.slow
def test_every_case_is_counted() -> None:
    result = fuzz.bad_inputs(21, seed=3, real=2, workers=1)
    assert sum(sum(counts.values()) for counts in result["by_kind"].values()) == sum(result["verdicts"].values()) == 23
    assert result["by_kind"].keys() == KINDS.keys()
    assert set(result["verdicts"]) <= set(RIGHT)
    assert result["failures"] == {}
    assert 0 < result["slowest_seconds"] < 60
