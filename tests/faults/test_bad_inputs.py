"""A thousand bad inputs: each ends in a clear message, in time, within memory, and nothing stays behind."""

import pytest

from tests.faults.running import KINDS, RIGHT, run_case
from tests.support.memory import limited_memory

# cases of each kind here; benchmarks/fuzz.py runs as many as one likes
NUM_CASES = {"npy": 160, "npz": 120, "csv": 190, "parquet": 150, "toml": 180, "command": 160, "run": 40}
_GROUP = 10
_SPARE = 4 * 2**30  # bytes of addresses that a case may ask for, so that a failure does not take the machine along
GROUPS = [(kind, start) for kind, num in NUM_CASES.items() for start in range(0, num, _GROUP)]


def test_there_are_a_thousand() -> None:
    assert sum(NUM_CASES.values()) == 1000
    assert NUM_CASES.keys() <= KINDS.keys()


@pytest.mark.parametrize(("kind", "first"), GROUPS)
def test_bad_inputs_end_in_a_message(kind: str, first: int) -> None:
    with limited_memory(_SPARE):
        outcomes = {seed: run_case(kind, seed) for seed in range(first, first + _GROUP)}
    wrong = {seed: outcome for seed, outcome in outcomes.items() if outcome.verdict not in RIGHT}
    assert not wrong
