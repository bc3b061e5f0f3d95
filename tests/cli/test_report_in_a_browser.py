"""The page of a real report, opened in headless Chromium."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.browser import browse, console, measure, needs_browser, screenshot

pytestmark = needs_browser


@pytest.fixture
def page(small_report: tuple[Path, str]) -> Path:
    """The page of a small report."""
    return small_report[0] / "report.html"


def test_page_is_drawn_without_a_complaint(page: Path, tmp_path: Path) -> None:
    pixels = screenshot(page, tmp_path)
    assert (pixels[0, 0] == 255).all()
    shares = [(row != 255).any(axis=1).mean() for row in np.array_split(pixels, 10)]
    assert min(shares) > 0.005  # no tenth of the page's top is blank


def test_console_errors_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<!DOCTYPE html><script>console.error('seen')</script>")
    done = browse(tmp_path / "bad.html", tmp_path, f"--screenshot={tmp_path / 'bad.png'}")
    assert any("seen" in line for line in console(done))


def test_dark_page_is_dark_and_its_figures_are_white_cards(page: Path, tmp_path: Path) -> None:
    pixels = screenshot(page, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert (pixels[0, 0] < 40).all()
    middle = pixels[:, 500]
    # The page has become longer than its figures: a card is white over hundreds of lines all the same.
    assert (middle == 255).all(axis=1).sum() > 500
    assert (middle < 40).all(axis=1).mean() > 0.1


@pytest.mark.parametrize("width", [360, 1000])
def test_nothing_is_wider_than_the_screen(page: Path, tmp_path: Path, width: int) -> None:
    found = measure(page, tmp_path, width)
    assert found["window"] == width
    assert found["page"] <= width
    assert found["wide"] == []
    assert found["text"]


def test_every_figure_is_loaded(page: Path, tmp_path: Path) -> None:
    listed = json.loads((page.parent / "report.json").read_text())["figures"]
    images = measure(page, tmp_path, 360)["images"]
    assert len(images) == len(listed) >= 6
    for alt, complete, natural, shown in images:
        assert alt
        assert complete
        assert natural > 300
        assert 250 < shown <= 360


def test_an_image_that_is_broken_would_be_seen(page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "report.html"
    broken.write_text(page.read_text(encoding="utf-8").replace("data:image/svg+xml;base64,", "data:image/svg+xml;x"))
    assert min(natural for _, _, natural, _ in measure(broken, tmp_path, 360)["images"]) == 0


def test_page_prints(page: Path, tmp_path: Path) -> None:
    browse(page, tmp_path, f"--print-to-pdf={tmp_path / 'report.pdf'}", "--no-pdf-header-footer")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert len(content) > 20_000
