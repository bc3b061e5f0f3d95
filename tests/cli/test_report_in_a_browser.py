"""The page of a real report, opened in headless Chromium."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")
# stands in for a phone: Chromium's own window cannot be as narrow
WRAPPER = """<!DOCTYPE html><iframe src="measured.html" style="border:0;width:{width}px;height:900px"></iframe>
<pre></pre><script>onmessage = event => document.querySelector("pre").textContent = event.data</script>"""
MEASURE = """<script>onload = () => {
  const wide = [...document.querySelectorAll("body *:not(.skip)")].filter(one => {
    const box = one.getBoundingClientRect();
    return box.right > innerWidth + 1 && box.width > 0 && !one.closest(".scroll table");
  });
  parent.postMessage(JSON.stringify({
    window: innerWidth,
    page: document.documentElement.scrollWidth,
    wide: wide.map(one => one.outerHTML.slice(0, 80)),
    images: [...document.images].map(one => [one.alt, one.complete, one.naturalWidth, one.clientWidth]),
    text: document.querySelector(".answer").innerText,
  }), "*");
}</script>"""
Browse = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def page(small_report: tuple[Path, str]) -> Path:
    """The page of a small report."""
    return small_report[0] / "report.html"


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Run the browser without a window on a file."""

    def run(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        own = f"--user-data-dir={tmp_path / 'profile'}"
        fixed = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr")
        command = [str(BROWSER), *fixed, own, *arguments, file.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    return run


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def screenshot(browse: Browse, file: Path, target: Path, *arguments: str) -> np.ndarray:
    done = browse(file, "--window-size=1000,6000", f"--screenshot={target}", *arguments)
    assert console(done) == []
    with Image.open(target) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def measure(browse: Browse, page: Path, folder: Path, width: int) -> dict[str, Any]:
    """Sizes inside a copy of the page that is allowed to run a script."""
    html = re.sub(r"<meta http-equiv.*?>", "", page.read_text(encoding="utf-8"), count=1)
    (folder / "measured.html").write_text(html.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    (folder / "wrapper.html").write_text(WRAPPER.format(width=width))
    done = browse(folder / "wrapper.html", "--dump-dom", "--virtual-time-budget=8000")
    found = re.search(r"<pre>(.+?)</pre>", done.stdout, re.DOTALL)
    assert found, done.stdout[-500:]
    return json.loads(unescape(found.group(1)))


def test_page_is_drawn_without_a_complaint(browse: Browse, page: Path, tmp_path: Path) -> None:
    pixels = screenshot(browse, page, tmp_path / "light.png")
    assert (pixels[0, 0] == 255).all()
    shares = [(row != 255).any(axis=1).mean() for row in np.array_split(pixels, 10)]
    assert min(shares) > 0.005  # no tenth of the page's top is blank


def test_console_errors_would_be_seen(browse: Browse, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<!DOCTYPE html><script>console.error('seen')</script>")
    done = browse(tmp_path / "bad.html", f"--screenshot={tmp_path / 'bad.png'}")
    assert any("seen" in line for line in console(done))


def test_dark_page_is_dark_and_its_figures_are_white_cards(browse: Browse, page: Path, tmp_path: Path) -> None:
    pixels = screenshot(browse, page, tmp_path / "dark.png", "--blink-settings=preferredColorScheme=0")
    assert (pixels[0, 0] < 40).all()
    middle = pixels[:, 500]
    assert (middle == 255).all(axis=1).mean() > 0.1
    assert (middle < 40).all(axis=1).mean() > 0.1


@pytest.mark.parametrize("width", [360, 1000])
def test_nothing_is_wider_than_the_screen(browse: Browse, page: Path, tmp_path: Path, width: int) -> None:
    found = measure(browse, page, tmp_path, width)
    assert found["window"] == width
    assert found["page"] <= width
    assert found["wide"] == []
    assert found["text"]


def test_every_figure_is_loaded(browse: Browse, page: Path, tmp_path: Path) -> None:
    listed = json.loads((page.parent / "report.json").read_text())["figures"]
    images = measure(browse, page, tmp_path, 360)["images"]
    assert len(images) == len(listed) >= 6
    for alt, complete, natural, shown in images:
        assert alt
        assert complete
        assert natural > 300
        assert 250 < shown <= 360


def test_an_image_that_is_broken_would_be_seen(browse: Browse, page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "report.html"
    broken.write_text(page.read_text(encoding="utf-8").replace("data:image/svg+xml;base64,", "data:image/svg+xml;x"))
    assert min(natural for _, _, natural, _ in measure(browse, broken, tmp_path, 360)["images"]) == 0


def test_page_prints(browse: Browse, page: Path, tmp_path: Path) -> None:
    browse(page, f"--print-to-pdf={tmp_path / 'report.pdf'}", "--no-pdf-header-footer")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert len(content) > 20_000
