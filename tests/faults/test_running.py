"""The judge of the bad inputs sees each fault that it claims to see, put in on purpose."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probvae.data import user_files as files
from probvae.errors import DataError
from tests.faults import running
from tests.faults.running import (
    HANG,
    LEFT_BEHIND,
    MESSAGE,
    NOT_BAD,
    TOO_MUCH_MEMORY,
    TRACEBACK,
    UNCLEAR,
    alarm,
    run_case,
)

MB = 2**20


def _raise(error: Exception) -> Callable[..., Any]:
    def read(*_: Any) -> Any:
        raise error

    return read


def _endless(*_: Any) -> Any:
    time.sleep(5)


def _leaves_a_file(*_: Any) -> Any:
    Path("left").touch()
    raise DataError("data.csv: expected numbers, got none. Write them.")


def _hungry(*_: Any) -> Any:
    bytearray(b"x") * (512 * MB)  # the system may take back some tens of MB that nobody uses, meanwhile
    raise DataError("data.csv: expected numbers, got none. Write them.")


FAULTS = {
    "message": (_raise(DataError("data.csv: expected numbers, got none. Write them.")), MESSAGE),
    "bug": (_raise(SystemError("bug")), TRACEBACK),
    "endless": (_endless, HANG),
    "half-written": (_leaves_a_file, LEFT_BEHIND),
    "hungry": (_hungry, TOO_MUCH_MEMORY),
    "short": (_raise(DataError("no")), UNCLEAR),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_a_reader_are_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, expected = FAULTS[name]
    monkeypatch.setattr(files, "read_file", lambda path, labels, limit: fault())
    monkeypatch.setattr(running, "SECONDS", 0.5)
    monkeypatch.setattr(running, "MEMORY", 32 * MB)
    run_case("csv", 0)  # what is imported only now is not the reader's memory
    assert run_case("csv", 1).verdict == expected


def test_a_message_that_steers_the_terminal_is_unclear(tmp_path: Path) -> None:
    for sign in ("\x1b[2J", "\r", "\u202e", "\u2028"):
        message = f"probvae: {sign}x.csv: expected numbers, got none.\n"
        assert running.verdict_on(2, message, [], tmp_path)[0] == UNCLEAR
    assert running.verdict_on(2, "probvae: x.csv: expected numbers, got none.\n", [], tmp_path)[0] == MESSAGE


def test_a_run_without_its_summary_is_half_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert running.verdict_on(0, "", ["run"], tmp_path)[0] == LEFT_BEHIND
    (tmp_path / "run" / "summary.json").touch()
    assert running.verdict_on(0, "", ["run"], tmp_path)[0] == NOT_BAD


def test_the_same_case_is_made_again(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        arguments = [running.prepare(kind, 5, tmp_path / name / kind) for kind in _folders(tmp_path / name)]
        content = {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        made.append((arguments, content))
    assert made[0] == made[1]


def _folders(home: Path) -> list[str]:
    kinds = [kind for kind in running.KINDS if kind != "run"]  # a run says when it was made
    for kind in kinds:
        (home / kind).mkdir()
    return kinds


def test_time_without_a_core_is_no_hang() -> None:
    """A third of a second's work on a core that four processes share."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        time.sleep(0.2)
        begin, end = time.perf_counter(), time.thread_time() + 0.33
        with alarm(0.5, of_processor=True):
            while time.thread_time() < end:
                pass
        assert time.perf_counter() - begin > 0.5
    finally:
        os.sched_setaffinity(0, cores)
        for other in others:
            other.kill()
            other.wait()
