import functools
import io
import shutil
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG

from tests.conftest import Once
from tests.support.command_line import Run, run_here

QUICK_REPORT = ("--quick", "--num-data", "40", "--draws", "100", "--no-progress")


@pytest.fixture(scope="session")
def probvae(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the command line in this process, in an empty folder unless ``cwd`` names another."""
    return functools.partial(run_here, cwd=tmp_path_factory.mktemp("cli"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and written, and not drawn: a test of something else need not wait a tenth of a second for each.

    tests/report draws all of them.
    """
    measure = FigureCanvasAgg.print_png

    def print_png(canvas: FigureCanvasAgg, place: Path | io.BytesIO) -> None:
        # matplotlib itself draws into memory, where a figure needs the size of a text
        place.write_bytes(b"png") if isinstance(place, Path) else measure(canvas, place)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", print_png)
    monkeypatch.setattr(FigureCanvasSVG, "print_svg", lambda canvas, place, metadata: Path(place).write_bytes(b"svg"))


@pytest.fixture
def unrefined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger's search ends after few steps, for tests that do not look at its numbers."""
    monkeypatch.setattr("probvae.inference.evaluation.refine._STEPS_IN_A_STAGE", 5)


@pytest.fixture(scope="session")
def small_run(probvae: Run, once: Once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that `probvae fit` itself wrote: two epochs on the digits."""

    def fit(home: Path) -> None:
        done = probvae("fit", "--epochs", "2", "--out", "small", "--hidden", "32", "--no-progress", cwd=home)
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
