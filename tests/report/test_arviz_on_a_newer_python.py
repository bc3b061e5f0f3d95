"""The ArviZ tests with ArviZ 1.x, which needs Python 3.12: in an environment of its own, kept in pytest's cache."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# the ones that import ArviZ
TESTS = [
    "tests/report/test_arviz.py",
    "tests/inference/test_mcmc.py",
    "tests/inference/test_pareto_smoothing.py",
    "tests/diagnostics/test_predictive_check.py",
    "tests/diagnostics/test_diagnose.py",  # with the newest numpy and scipy
]
NEWER = ["3.14", "3.13", "3.12"]


def newer_pythons() -> list[str]:
    """Interpreters that are installed, those of pyenv among them: its shims stand on the path also without one."""
    homes = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = [shutil.which(f"python{version}") for version in NEWER]
    return [*filter(None, named), *(str(found) for v in NEWER for found in sorted(homes.glob(f"{v}.*/bin/python")))]


def runs(python: str) -> bool:
    return subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0


@pytest.mark.slow
def test_with_arviz_1(request: pytest.FixtureRequest) -> None:
    """PROBVAE_NEWER_PYTHON may name an interpreter that has everything already."""
    if sys.version_info >= (3, 12):
        pytest.skip("this Python runs the ArviZ tests with 1.x itself")
    python = os.environ.get("PROBVAE_NEWER_PYTHON") or installed(request.config.cache.mkdir("arviz-1"))
    version = "import arviz; print(arviz.__version__)"
    found = subprocess.run([python, "-c", version], capture_output=True, text=True, check=True)
    assert int(found.stdout.split(".")[0]) >= 1
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, "-m", "pytest", "-q", "-m", "not slow", "-k", "not tied", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def installed(folder: Path) -> str:
    """An environment with the package's dependencies; made at the first run, which takes minutes."""
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return str(python)
    bases = [base for base in newer_pythons() if runs(base)]
    if not bases:
        pytest.skip("no Python 3.12 or newer is installed, so ArviZ 1.x was NOT tested")
    subprocess.run([bases[0], "-m", "venv", "--clear", str(folder)], check=True)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    install = [str(python), "-m", "pip", "install", "-q", *needed, "pytest"]
    done = subprocess.run(install, capture_output=True, text=True)
    if "connection" in done.stderr.lower() and done.returncode:
        pytest.skip("the package index cannot be reached, so ArviZ 1.x was NOT tested")
    assert done.returncode == 0, done.stderr
    ready.touch()
    return str(python)
