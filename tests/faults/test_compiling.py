"""Signals while torch's compiler works, and while compiled steps run: nothing lost, nothing left, the same bits."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.killing import ROOT, command, content_of

QUIET = ("--no-gap", "--no-figures", "--no-progress")
# few operators: what takes time here is the compiler
FIT = (
    *("fit", "--data", "linear-gaussian", "--num-data", "100", "--decoder", "linear", "--encoder", "linear"),
    *("--latent-dim", "1", "--batch-size", "36", "--epochs", "300", "--compile", "yes", "--out", "run"),
)
GO_ON = "Go on with: probvae fit --resume run\n"


class Fit:
    """A fit in a process of its own; ``cache`` is the compiler's."""

    def __init__(self, home: Path, cache: Path) -> None:
        self.run, self.cache = home / "run", cache
        self.before = self._checkpoints()
        what = ("fit", "--resume", "run") if self.run.exists() else FIT
        # with the processors' abilities as the system tells them: to try each takes the compiler seconds
        compiler = {"TORCHINDUCTOR_CACHE_DIR": str(cache), "TORCHINDUCTOR_VEC_ISA_OK": "1"}
        environment = {**os.environ, **compiler, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # in a session of its own its processes can be found, and killed together
        self.process = subprocess.Popen(
            command(*what, *QUIET), cwd=home, env=environment, start_new_session=True, **pipes
        )

    def ended(self) -> tuple[int, str]:
        """The exit code, and what was told."""
        _, err = self.process.communicate(timeout=120)
        return self.process.returncode, err

    def ended_by(self, number: int, when: Callable[["Fit"], object]) -> tuple[int, str]:
        """The same after a signal, once ``when`` holds."""
        try:
            while not when(self):
                assert self.process.poll() is None, self.process.communicate()
                time.sleep(0.01)
            # a kill that nobody can hear goes to all processes, as that of a machine
            (os.killpg if number == signal.SIGKILL else os.kill)(self.process.pid, number)
            return self.ended()
        finally:
            self.process.kill()

    def is_running(self) -> bool:
        """Whether it has taken steps."""
        return bool(self._checkpoints() - self.before)

    def _checkpoints(self) -> set[Path]:
        return set((self.run / "checkpoints").glob("epoch*"))

    def is_compiling(self) -> bool:
        """Whether the compiler is at the step itself."""
        return any(self.cache.glob("*/*.main_CxxBuild")) and "cc1plus" in self.processes()

    def processes(self) -> list[str]:
        """The names of all that are alive in its session."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:  # it has ended
                continue
            state, _, _, session = rest.split()[:4]
            if int(session) == self.process.pid and state != "Z":
                found.append(name)
        return found


def library(cache: Path) -> Path:
    """What the compiler makes of the step."""
    return next(cache.glob("*/*.main.so"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that nobody disturbed, and what the compiler made for it."""
    home = tmp_path_factory.mktemp("whole")
    assert Fit(home, home / "cache").ended() == (0, "")
    assert '"path": "compiled"' in (home / "run" / "environment.json").read_text()
    return home


@pytest.fixture
def cache(whole: Path, tmp_path: Path) -> Path:
    """A cache of the compiler that lacks the step."""
    shutil.copytree(whole / "cache", tmp_path / "cache")
    library(tmp_path / "cache").unlink()
    return tmp_path / "cache"


@pytest.mark.slow
def test_signals(whole: Path, cache: Path, tmp_path: Path) -> None:
    """SIGINT and SIGTERM while the step is compiled, and while the compiled step runs."""
    fit = Fit(tmp_path, cache)
    assert fit.ended_by(signal.SIGTERM, Fit.is_compiling) == (143, "\nprobvae: interrupted.\n")
    assert fit.processes() == []
    assert not fit.run.exists()
    for number, again in ((signal.SIGTERM, whole / "cache"), (signal.SIGINT, whole / "cache")):
        code, err = Fit(tmp_path, again).ended_by(number, Fit.is_running)
        assert code == 128 + number
        assert err.startswith("\nprobvae: interrupted after epoch ")
        assert err.endswith(GO_ON)
    fit = Fit(tmp_path, cache)
    assert fit.ended_by(signal.SIGINT, Fit.is_compiling) == (130, f"\nprobvae: interrupted. {GO_ON}")
    assert fit.processes() == []
    assert Fit(tmp_path, cache).ended() == (0, "")
    assert '"path": "compiled"' in (tmp_path / "run" / "environment.json").read_text()
    assert content_of(tmp_path / "run") == content_of(whole / "run")


@pytest.mark.slow
def test_killed_while_half_a_library_is_written(whole: Path, cache: Path, tmp_path: Path) -> None:
    """A process that loads it ends with a bus error, and so would all that come after."""
    fit = Fit(tmp_path, cache)
    assert fit.ended_by(signal.SIGKILL, Fit.is_compiling)[0] == -signal.SIGKILL
    half = cache / library(whole / "cache").relative_to(whole / "cache")
    half.write_bytes(library(whole / "cache").read_bytes()[:4096])
    assert Fit(tmp_path, cache).ended() == (0, "")
    assert '"path": "compiled"' in (tmp_path / "run" / "environment.json").read_text()
    assert content_of(tmp_path / "run") == content_of(whole / "run")
