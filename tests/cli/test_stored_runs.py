"""Runs of every format that was ever written are read, and give the numbers that were noted when they were made."""

import json
import re
import shutil
from pathlib import Path

import pytest

import probvae as package
from probvae.errors import RunError
from probvae.experiments.recipe import read_run_recipe
from probvae.storage.untrusted import FORMAT
from tests.stored_runs.store import HERE, numbers

STORED = sorted(folder for folder in HERE.iterdir() if (folder / "run").is_dir())


def test_one_of_each_format_is_stored() -> None:
    assert [folder.name for folder in STORED] == [f"v{number}" for number in range(FORMAT + 1)]


def test_a_run_of_each_release_is_stored() -> None:
    """A release that the changelog names has a run here, so that later versions are held to read it."""
    changelog = (HERE.parents[1] / "CHANGELOG.md").read_text()
    releases = set(re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE))
    written = {
        json.loads((folder / "run" / "environment.json").read_text())["versions"]["probvae"] for folder in STORED
    }
    assert "0.1.0" in releases
    assert releases <= written
    assert package.__version__ not in releases, "a version under way is not the one that was released"


@pytest.mark.parametrize("folder", STORED, ids=lambda folder: folder.name)
def test_numbers_are_those_of_the_day_it_was_made(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    found = numbers(folder)
    assert found["log_evidence"] == pytest.approx(expected["log_evidence"], rel=1e-6)
    # Version 0.2 draws other numbers from a seed than 0.1 did: the error of the draws, once for each version.
    drawn_alike = folder.name not in ("v0", "v1")
    tolerance = 1e-6 * abs(found["elbo"]) if drawn_alike else 5 * 2**0.5 * found["elbo_error"]
    assert found["elbo"] == pytest.approx(expected["elbo"], abs=tolerance)
    assert found["elbo"] < found["log_evidence"]


@pytest.mark.usefixtures("undrawn", "unrefined")
@pytest.mark.parametrize("folder", STORED, ids=lambda folder: folder.name)
def test_every_command_reads_it(probvae, folder: Path, tmp_path: Path) -> None:
    for command in ("gap", "encode", "reconstruct", "sample"):
        done = probvae(command, "run", "--out", tmp_path, cwd=folder)
        assert done.returncode == 0, done.stderr
    done = probvae("compare", "run", "--out", tmp_path, "--no-figures", cwd=folder)
    assert done.returncode == 0, done.stderr
    written = json.loads((folder / "run" / "summary.json").read_text())
    (found,) = json.loads((tmp_path / "compare.json").read_text())["runs"]
    elbo = written["elbo"]
    tolerance = elbo["standard_error"] if folder.name in ("v0", "v1") else 1e-5 * abs(elbo["value"])
    assert found["elbo"]["value"] == pytest.approx(elbo["value"], abs=tolerance)


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """A run that says it is of the next format."""
    run = Path(shutil.copytree(STORED[-1] / "run", tmp_path / "run"))
    environment = json.loads((run / "environment.json").read_text())
    versions = {**environment["versions"], "probvae": "9.9"}
    (run / "environment.json").write_text(json.dumps({**environment, "format": FORMAT + 1, "versions": versions}))
    return run


@pytest.mark.parametrize("read", [package.load, read_run_recipe])
def test_later_format_is_refused(read, later: Path) -> None:
    with pytest.raises(
        RunError, match=rf"format {FORMAT + 1} by probvae 9\.9; this version .* up to {FORMAT}\. Update"
    ):
        read(later)


@pytest.mark.parametrize("number", ["1", 1.5, -1, True, None, [1]])
def test_format_that_is_no_number(later: Path, number: object) -> None:
    (later / "environment.json").write_text(json.dumps({"format": number}))
    with pytest.raises(RunError, match="expected the number of a format"):
        package.load(later)
