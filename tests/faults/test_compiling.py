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
    """A fit in a process of its own; it builds in the folder ``probvae`` of the compiler's ``cache``."""

    def __init__(self, home: Path, cache: Path) -> None:
        self.run, self.cache = home / "run", cache / "probvae"
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
        """Whether the compiler is at work; where the cache has all else, at the step itself."""
        return any(self.cache.glob("*/*_CxxBuild")) and "cc1plus" in self.processes()

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
    return max(cache.glob("probvae/*/*.so"), key=lambda file: file.stat().st_size)


def check_whole(fit: Fit) -> None:
    code, err = fit.ended()
    assert code == 0, err
    assert "warning" not in err
    assert '"path": "compiled"' in (fit.run / "environment.json").read_text()


@pytest.mark.slow
def test_compiled_fit_is_stopped_everywhere(tmp_path: Path) -> None:
    """SIGTERM, SIGINT and SIGKILL while the step is compiled, the first two also while the compiled step runs."""
    home, full, cache = tmp_path / "home", tmp_path / "full", tmp_path / "cache"
    home.mkdir()
    whole = Fit(tmp_path, full)
    check_whole(whole)
    shutil.copytree(full, cache)
    library(cache).unlink()
    # what somebody else is building in the folder above is nobody's business here
    others = cache / "aa" / "aa_CxxBuild"
    others.mkdir(parents=True)

    fit = Fit(home, cache)
    code, err = fit.ended_by(signal.SIGTERM, Fit.is_compiling)
    assert code == 143
    assert err.endswith("\nprobvae: interrupted.\n")
    assert fit.processes() == []
    assert not fit.run.exists()

    for number in (signal.SIGTERM, signal.SIGINT):
        code, err = Fit(home, full).ended_by(number, Fit.is_running)
        assert code == 128 + number
        assert "\nprobvae: interrupted after epoch " in err
        assert err.endswith(GO_ON)

    fit = Fit(home, cache)
    code, err = fit.ended_by(signal.SIGINT, Fit.is_compiling)
    assert code == 130
    assert err.endswith(f"\nprobvae: interrupted. {GO_ON}")
    assert fit.processes() == []

    assert Fit(home, cache).ended_by(signal.SIGKILL, Fit.is_compiling)[0] == -signal.SIGKILL
    # as if it had been in the middle of writing: a process that loaded this would end with a bus error
    half = cache / library(full).relative_to(full)
    half.write_bytes(library(full).read_bytes()[:4096])

    fit = Fit(home, cache)
    check_whole(fit)
    assert content_of(fit.run) == content_of(whole.run)
    assert [path.name for path in cache.iterdir() if path != others.parent] == ["probvae"]
    assert others.is_dir()
