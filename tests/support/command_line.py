"""`probvae` as a user calls it: in this process, or in one of its own where the process is what is tested."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from probvae.cli import main

Run = Callable[..., subprocess.CompletedProcess[str]]


def run_here(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line's entry point in this process: importing torch anew for each of many runs would take minutes."""
    out, err = io.StringIO(), io.StringIO()
    command = ["probvae", *map(str, arguments)]
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    place = contextlib.chdir(cwd), mock.patch.object(sys, "argv", command)
    with streams[0], streams[1], place[0], place[1], pytest.raises(SystemExit) as stop:
        main()
    return subprocess.CompletedProcess(command, int(stop.value.code or 0), out.getvalue(), err.getvalue())


def run_process(
    *arguments: str | Path, cwd: Path, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The real command line in a process of its own."""
    command = [sys.executable, "-m", "probvae", *map(str, arguments)]
    variables = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=timeout)
