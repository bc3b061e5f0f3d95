import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from probvae.cli import main
from tests.conftest import Once

QUICK_REPORT = ("--quick", "--num-data", "40", "--draws", "100", "--no-progress")
Run = Callable[..., subprocess.CompletedProcess[str]]


def run_process(*arguments: str | Path, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """The real command line in a process of its own."""
    command = [sys.executable, "-m", "probvae", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="session")
def probvae(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the command line's entry point here: importing torch anew for each of many runs would take minutes."""
    home = tmp_path_factory.mktemp("cli")

    def run(*arguments: str | Path, cwd: Path = home) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        command = ["probvae", *map(str, arguments)]
        streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        place = contextlib.chdir(cwd), mock.patch.object(sys, "argv", command)
        with streams[0], streams[1], place[0], place[1], pytest.raises(SystemExit) as stop:
            main()
        return subprocess.CompletedProcess(command, int(stop.value.code or 0), out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def small_run(once: Once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that `probvae fit` itself wrote, in a process of its own: two epochs on the digits."""

    def fit(home: Path) -> None:
        done = run_process("fit", "--epochs", "2", "--out", "small", "--hidden", "32", "--no-progress", cwd=home)
        assert done.returncode == 0, done.stderr
        assert "held-out data of digits" in done.stdout

    # each worker has a copy: what locks the run is in nobody's way
    return Path(shutil.copytree(once("small-run", fit) / "small", tmp_path_factory.mktemp("runs") / "small"))


@pytest.fixture(scope="session")
def small_report(probvae: Run, small_run: Path, once: Once) -> tuple[Path, str]:
    """The folder of a quick report on a few data of that run, to be read only, and what the terminal showed."""

    def report(home: Path) -> None:
        done = probvae("report", small_run, *QUICK_REPORT, "--out", home / "report")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        (home / "shown.txt").write_text(done.stdout)

    home = once("small-report", report)
    return home / "report", (home / "shown.txt").read_text()
