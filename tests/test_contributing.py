"""The diffs of CONTRIBUTING.md are applied to a copy of the repository; tests and a fit with all parts run there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Once

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
IGNORED = shutil.ignore_patterns("__pycache__", "stored_runs")

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git applies the diffs")


class Part(NamedTuple):
    """A section of CONTRIBUTING.md with a diff: its title, and the diff."""

    title: str
    diff: str

    def files(self) -> list[str]:
        """The diff of each file: several in one would have to count the lines of their hunks for git."""
        return re.split(r"^(?=--- (?:a/|/dev/null))", self.diff, flags=re.MULTILINE)[1:]

    def added(self) -> dict[str, int]:
        """How many lines (blank ones apart) the diff adds to each file, tests apart."""
        counts = {re.search(r"^\+\+\+ b/(.*)", file, re.MULTILINE)[1]: len(added_lines(file)) for file in self.files()}
        return {name: count for name, count in counts.items() if not name.startswith("tests/")}

    def tests(self) -> list[str]:
        """The test files that the diff adds."""
        return re.findall(r"^\+\+\+ b/(tests/.*)", self.diff, re.MULTILINE)


def added_lines(file: str) -> list[str]:
    return re.findall(r"^\+(?!\+\+)(.+)", file, re.MULTILINE)


PARTS = [
    Part(title.strip(), diff)
    for section in re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]
    for title, diff in re.findall(r"\A(.*?)\n.*?```diff\n(.*?)```", section, re.DOTALL)
]


def run_in(copy: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy), "GIT_CEILING_DIRECTORIES": str(copy.parent)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def copy(once: Once) -> Path:
    """The repository with all diffs applied."""

    def make(folder: Path) -> None:
        for name in ("probvae", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=IGNORED)
        shutil.copy(ROOT / "pyproject.toml", folder)
        for number, diff in enumerate(diff for part in PARTS for diff in part.files()):
            (folder / f"{number}.diff").write_text(diff)
        run_in(folder, "git", "apply", "--recount", *(file.name for file in folder.glob("*.diff")))

    return once("contributing", make)


def test_every_part_has_its_diff() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| (\d+) \| (\d+) \|$", TEXT, re.MULTILINE)
    assert len(rows) == len(PARTS) == 7
    for (name, *costs), part in zip(rows, PARTS, strict=True):
        assert part.title.split(" ", 1)[1].startswith(name), (name, part.title)
        new = re.findall(r"^--- /dev/null\n\+\+\+ b/(?!tests/)(.*)", part.diff, re.MULTILINE)
        elsewhere = sum(count for file, count in part.added().items() if file not in new)
        assert [len(new), elsewhere] == [int(cost) for cost in costs], part.title


def test_all_diffs_apply(copy: Path) -> None:
    for part in PARTS:
        for name in part.added():
            assert (copy / name).is_file()


@pytest.mark.slow
def test_the_tests_of_all_parts_pass(copy: Path) -> None:
    tests = [file for part in PARTS for file in part.tests()]
    assert len(tests) == len(PARTS), "each part brings one test file"
    printed = run_in(copy, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests)
    assert re.search(r"\d\d passed", printed), printed


@pytest.mark.slow
def test_the_command_line_takes_all_parts(copy: Path) -> None:
    parts = (
        *("--data", "waiting-times", "--prior", "logistic", "--likelihood", "exponential", "--guide", "laplace"),
        *("--objective", "best-particle", "--num-particles", "5", "--learning-rate-warmup", "5"),
    )
    small = ("--epochs", "2", "--batch-size", "32", "--hidden", "4", "--no-figures", "--no-progress", "--out", "run")
    printed = run_in(copy, sys.executable, "-m", "probvae", "fit", *parts, *small)
    assert "ELBO" in printed
    assert "learning_rate_warmup = 5" in (copy / "run" / "config.toml").read_text()
    assert "amortisation" in printed, "the ledger knows the guide's family"
    assert "logistic" in run_in(copy, sys.executable, "-m", "probvae", "list", "priors")
