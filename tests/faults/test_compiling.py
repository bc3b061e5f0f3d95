"""Signals while torch's compiler works, and while compiled steps run: nothing lost, nothing left, the same bits."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.killing import ROOT, command, content_of

QUIET = ("--no-gap", "--no-figures", "--no-progress")
FIT = (
    "fit",
    "--num-data",
    "200",
    "--hidden",
    "8",
    "--epochs",
    "3000",
    "--batch-size",
    "50",
    "--compile",
    "yes",
    *QUIET,
)
GO_ON = "Go on with: probvae fit --resume run\n"


class Place:
    """A folder to fit in, with a cache of the compiler that has all of the fit but what is to be compiled."""

    def __init__(self, home: Path) -> None:
        self.home, self.run, self.cache = home, home / "run", home / "cache"

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(self.cache)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # a session of its own: its processes can be found, and killed together
        return subprocess.Popen(
            command(*arguments), cwd=self.home, env=environment, text=True, start_new_session=True, **pipes
        )

    def go_on(self) -> subprocess.Popen[str]:
        return self.start("fit", "--resume", "run", *QUIET) if self.run.exists() else self.start(*FIT, "--out", "run")

    def library(self) -> Path:
        """What the compiler made of the step."""
        return next(self.cache.glob("*/*.main.so"))

    def compiling(self) -> Path | None:
        """The library of the step, while it is compiled."""
        marks = [mark for mark in self.cache.glob("*/*.main_CxxBuild") if not mark.with_name(_library(mark)).exists()]
        return marks[0].with_name(_library(marks[0])) if marks and "cc1plus" in self.names() else None

    def has_checkpoint(self) -> bool:
        return any((self.run / "checkpoints").glob("epoch*"))

    session: int = 0

    def names(self) -> list[str]:
        """Of all living processes of the session that was begun last."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            state, _, _, session = rest.split()[:4]
            if int(session) == self.session and state != "Z":
                found.append(name)
        return found


def _library(mark: Path) -> str:
    return mark.name.replace("_CxxBuild", ".so")


def ended(place: Place, process: subprocess.Popen[str], when: Callable[[], object], number: int) -> tuple[int, str]:
    """The exit code and what was told, after a signal at that time."""
    place.session = process.pid
    try:
        for _ in range(12_000):
            if when():
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        else:
            raise AssertionError("it did not come to that")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert out == ""
        return process.returncode, err
    finally:
        process.kill()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A fit that nobody disturbed."""
    place = Place(tmp_path_factory.mktemp("compiled"))
    process = place.go_on()
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert '"path": "compiled"' in (place.run / "environment.json").read_text()
    return place


@pytest.fixture
def place(compiled: Place, tmp_path: Path) -> Iterator[Place]:
    shutil.copytree(compiled.cache, tmp_path / "cache")
    yield Place(tmp_path)


def check_ends_as(place: Place, compiled: Place) -> None:
    process = place.go_on()
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert '"path": "compiled"' in (place.run / "environment.json").read_text()
    assert content_of(place.run) == content_of(compiled.run)


@pytest.mark.slow
def test_signals_while_compiled_steps_run(place: Place, compiled: Place) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        before = set((place.run / "checkpoints").glob("epoch*"))
        code, err = ended(
            place, place.go_on(), lambda: set((place.run / "checkpoints").glob("epoch*")) - before, number
        )
        assert code == 128 + number
        assert err.startswith("\nprobvae: interrupted after epoch ")
        assert err.endswith(GO_ON)
    check_ends_as(place, compiled)


@pytest.mark.slow
def test_signals_while_a_step_is_compiled(place: Place, compiled: Place) -> None:
    """A fit before its first step, and one that goes on."""
    place.library().unlink()
    code, err = ended(place, place.go_on(), place.compiling, signal.SIGTERM)
    assert (code, err) == (143, "\nprobvae: interrupted.\n")
    assert place.names() == []
    assert not place.run.exists()
    ended(place, place.go_on(), place.has_checkpoint, signal.SIGINT)
    place.library().unlink()
    for number in (signal.SIGINT, signal.SIGTERM):
        code, err = ended(place, place.go_on(), place.compiling, number)
        assert (code, err) == (128 + number, f"\nprobvae: interrupted. {GO_ON}")
        assert place.names() == []
    check_ends_as(place, compiled)


@pytest.mark.slow
def test_killed_while_half_a_library_is_written(place: Place, compiled: Place) -> None:
    """A process that loaded it would end with a bus error, and so would all that come after."""
    whole = place.library().read_bytes()
    place.library().unlink()
    process = place.go_on()
    place.session = process.pid
    while not (library := place.compiling()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    library.write_bytes(whole[:4096])
    check_ends_as(place, compiled)
