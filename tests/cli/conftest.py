import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def probvae(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the real command line in a process of its own."""
    home = tmp_path_factory.mktemp("cli")

    def run(*arguments: str | Path, cwd: Path = home, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "probvae", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "120"}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)

    return run


@pytest.fixture(scope="session")
def small_run(probvae: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that `probvae fit` itself wrote: two epochs on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    done = probvae("fit", "--epochs", "2", "--out", folder, "--hidden", "32", "--no-progress")
    assert done.returncode == 0, done.stderr
    return folder
