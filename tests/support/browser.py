"""Headless Chromium: a page is opened, drawn and measured. Without a browser such tests are skipped."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed"
)
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


def browse(file: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the browser without a window on ``file``, with its own files in ``folder``."""
    own = f"--user-data-dir={folder / 'profile'}"
    fixed = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr")
    command = [str(BROWSER), *fixed, own, *arguments, file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the page said in the browser's console."""
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def screenshot(file: Path, folder: Path, *arguments: str) -> np.ndarray:
    """The pixels (height, width, 3) of the page, which must not complain."""
    target = folder / "screenshot.png"
    done = browse(file, folder, "--window-size=1000,6000", f"--screenshot={target}", *arguments)
    assert console(done) == []
    with Image.open(target) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def measure(page: Path, folder: Path, width: int) -> dict[str, Any]:
    """Sizes inside a copy of the page that is allowed to run a script."""
    html = re.sub(r"<meta http-equiv.*?>", "", page.read_text(encoding="utf-8"), count=1)
    (folder / "measured.html").write_text(html.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    (folder / "wrapper.html").write_text(WRAPPER.format(width=width))
    done = browse(folder / "wrapper.html", folder, "--dump-dom", "--virtual-time-budget=8000")
    found = re.search(r"<pre>(.+?)</pre>", done.stdout, re.DOTALL)
    assert found, done.stdout[-500:]
    return json.loads(unescape(found.group(1)))
