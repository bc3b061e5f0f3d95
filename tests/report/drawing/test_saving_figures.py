"""Figures on disk, and nothing changed outside them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from probvae.errors import ArgumentError, RunError
from probvae.report.figures import decoded_grid, latent_plane, learning_curve, reconstructions, samples, save_figure


def _rows(num_rows: int, num_columns: int) -> np.ndarray:
    return np.random.default_rng(2).random((num_rows, num_columns))


def _settings() -> dict[str, object]:
    # asking for the backend is what chooses one
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}


FIGURES: dict[str, Callable[[], Figure]] = {
    "learning": lambda: learning_curve(
        [{"epoch": e, "elbo": -1.0 / e, "validation_elbo": -2.0 / e, "kl": 1.0, "variance": 0.1} for e in range(1, 9)]
    ),
    "plane": lambda: latent_plane(_rows(50, 2), np.arange(50) % 3, scales=_rows(50, 2)),
    "plane, colour bar": lambda: latent_plane(_rows(50, 2), np.linspace(0, 1, 50)),
    "plane, many points": lambda: latent_plane(_rows(5000, 2)),
    "line": lambda: latent_plane(_rows(50, 1), np.arange(50) % 3, scales=_rows(50, 1)),
    "pictures": lambda: reconstructions(_rows(5, 16), _rows(5, 16), (4, 4)),
    "table": lambda: reconstructions(_rows(5, 4), _rows(5, 4), None, ["cost ($)", "a_b", "c^d", "e"]),
    "samples": lambda: samples(_rows(30, 3), None, data=_rows(20, 3)),
    "grid": lambda: decoded_grid(_rows(9, 16).reshape(3, 3, 16), (4, 4), (-2.0, 2.0)),
}


@pytest.fixture(scope="module", params=FIGURES.values(), ids=FIGURES.keys())
def draw(request: pytest.FixtureRequest) -> Callable[[], Figure]:
    """What draws one of them anew."""
    return request.param


@pytest.fixture(scope="module")
def figure(draw: Callable[[], Figure]) -> Figure:
    """One of them, drawn once for all tests."""
    drawn = draw()
    drawn.canvas.draw()
    return drawn


@pytest.fixture(scope="module")
def files(figure: Figure, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of that figure, written once for all tests."""
    return save_figure(figure, tmp_path_factory.mktemp("saved") / "figures", "c=0.1")


def test_both_files_are_whole_and_sized(figure: Figure, files: list[Path]) -> None:
    png, svg = files
    assert [path.name for path in (png, svg)] == ["c=0.1.png", "c=0.1.svg"]
    assert sorted(path.name for path in png.parent.iterdir()) == ["c=0.1.png", "c=0.1.svg"]
    with Image.open(png) as image:
        assert image.format == "PNG"
        np.testing.assert_allclose(image.size, figure.get_size_inches() * 150, atol=1)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert "<svg" in svg.read_text(encoding="utf-8")


def test_the_svg_is_the_same_each_time(figure: Figure, files: list[Path], tmp_path: Path) -> None:
    """Of the same figure; the next test has one that is drawn anew."""
    first = files[1].read_bytes()
    assert save_figure(figure, tmp_path, "again")[1].read_bytes() == first
    assert b"<dc:date>" not in first


def test_no_text_is_cut_off(figure: Figure) -> None:
    box, whole = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= whole[0]
    assert box.y1 <= whole[1]


def test_the_users_style_neither_counts_nor_changes(
    draw: Callable[[], Figure], figure: Figure, files: list[Path], tmp_path: Path
) -> None:
    """Neither on the screen nor in the files; and a figure that is drawn anew has the same bytes."""
    with style.context(["dark_background", {"font.size": 30, "axes.grid": True, "svg.hashsalt": "mine"}]):
        before = _settings()
        dark = draw()
        dark.canvas.draw()
        pixels = np.asarray(dark.canvas.buffer_rgba())
        written = save_figure(dark, tmp_path, "figure")
        assert _settings() == before
    np.testing.assert_array_equal(pixels, np.asarray(figure.canvas.buffer_rgba()))
    assert written[1].read_bytes() == files[1].read_bytes()


def test_pyplot_and_torch_stay_out() -> None:
    code = (
        "import sys, pathlib, tempfile, probvae.report.figures as f\n"
        "figure = f.learning_curve([{'epoch': 1, 'elbo': -1.0, 'kl': 0.5}])\n"
        "f.save_figure(figure, pathlib.Path(tempfile.mkdtemp()), 'x')\n"
        "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = FIGURES["learning"]()
    png = save_figure(figure, tmp_path, "x")[0]
    before = png.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FigureCanvasAgg, "print_png", fail)
    with pytest.raises(RunError, match="No space left"):
        save_figure(figure, tmp_path, "x")
    assert png.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_wrong_names_and_folders_are_errors(tmp_path: Path) -> None:
    figure = FIGURES["learning"]()
    with pytest.raises(ArgumentError, match="name: expected a file name without folder"):
        save_figure(figure, tmp_path, "a/b")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be made"):
        save_figure(figure, tmp_path / "file", "x")
