"""Fits that are killed, or whose disk is full, end as if nothing had been."""

import math
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Once
from tests.faults.killing import FAULT_POINTS, FIT, Trial, Whole, content_of, killed_at, killed_in, start, whole_run

FAULTS = [f"{point}:{number}:kill" for number, point in enumerate(FAULT_POINTS, start=1)]
FULL = ["file-opened:4:full", "file-written:5:full", "file-flushed:3:full", "metrics-opened:2:full"]


@pytest.fixture(scope="module")
def whole(once: Once) -> Whole:
    """A fit that nobody disturbed; how long it took is of no interest here."""
    return Whole(content_of(once("undisturbed-fit", whole_run) / "whole"), math.nan)


@pytest.mark.slow
@pytest.mark.parametrize(
    "trial",
    [
        *(partial(killed_at, seconds) for seconds in (0.05, 0.4, 0.9)),
        *(partial(killed_in, fault) for fault in ["run-filled:1:kill", *FAULTS[1:], *FULL]),
    ],
    ids=lambda trial: str(trial.args[0]),
)
def test_killed_fit(trial: Trial, whole: Whole) -> None:
    result = trial(whole=whole)
    assert (result.outcome, result.message) == ("same", "")


@pytest.mark.slow
@pytest.mark.parametrize("point", FAULT_POINTS)
def test_every_step_is_reached(point: str, tmp_path: Path) -> None:
    """A step whose name nothing passes would make the trials above pass without a kill."""
    process = start(tmp_path, [*FIT, "--out", "run"], f"{point}:1:kill")
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
