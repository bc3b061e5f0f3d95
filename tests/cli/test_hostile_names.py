"""Names of files, columns and classes that want to be more than text: on the terminal, in figures, in the page."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from probvae.cli.output import print_line, print_table, warn
from probvae.diagnostics.verdicts import Verdict
from probvae.report.figures import save_figure
from probvae.report.page import Page, PageSection, Picture, render
from probvae.report.tables import Grid, TableRow
from tests.cli.conftest import QUICK_REPORT
from tests.support.browser import browse, needs_browser

PAYLOADS = [
    "<img src=x onerror=hacked()>",
    "</script><script>hacked()</script>",
    "</title><script>hacked()</script>",
    '"><svg onload=hacked()>',
    "' autofocus onfocus=hacked() x='",
    "javascript:hacked()",
    "{{7*7}}{% raw %}",
    "&lt;script&gt;hacked()&lt;/script&gt;",
    "<!--<b>",
    "]]><script>hacked()</script>",
]
TURNED = "a\u202egnp.exe"
STEERING = "\x1b[31mred\x1b]0;title\x07\x9b2J\r"
# what a page would say of itself if a script of a payload ran, or a tag became one
LOOK = """<script>onload = () => setTimeout(() => {
  const all = [...document.querySelectorAll("body *")];
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify({
    hacked: window.was_hacked === true,
    title: document.title,
    handlers: all.filter(one => [...one.attributes].some(a => a.name.startsWith("on"))).length,
    strange: all.filter(one => ["SVG", "IFRAME", "OBJECT", "B"].includes(one.tagName.toUpperCase())).length,
    scripts: document.scripts.length,
    outside: [...document.images].filter(one => !one.src.startsWith("data:")).length,
    text: document.body.innerText,
  });
  document.body.append(told);
}, 300)</script>"""
HACKED = "<script>function hacked() { window.was_hacked = true }</script>"


def told(html: str, folder: Path) -> dict[str, Any]:
    """What the page is when scripts may run: the page's own policy against them is taken out."""
    open_page, removed = re.subn(r"<meta http-equiv.*?>", HACKED, html, count=1)
    assert removed
    file = folder / "looked-at.html"
    file.write_text(open_page.replace("</body>", LOOK + "</body>"), encoding="utf-8")
    done = browse(file, folder, "--dump-dom", "--virtual-time-budget=8000")
    found = re.search(r'<pre id="told">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-500:]
    return json.loads(unescape(found.group(1)))


def hostile_page(payload: str) -> Page:
    """A page all of whose texts are the payload."""
    numbers = (TableRow(payload, payload, payload), TableRow(payload, "1.0", payload))
    picture = Picture(payload, b"<svg/>", "svg+xml", 10, 10, payload)
    section = PageSection(
        payload, payload, payload, numbers, (Grid(payload, (payload, payload), ((payload, payload),)),), (picture,)
    )
    verdicts = [Verdict(payload, "warn", 0.1, 0.2, payload), Verdict("name", "not computed", None, None, payload)]
    return Page(
        payload,
        payload,
        "warn",
        verdicts,
        [section, PageSection("a", "b", "c", not_computed=payload)],
        [payload],
        numbers,
    )


@needs_browser
class TestInABrowser:
    """The page in Chromium, with scripts switched on."""

    def test_no_text_of_a_page_becomes_more(self, tmp_path: Path) -> None:
        payload = " ".join(PAYLOADS)
        found = told(render(hostile_page(payload)), tmp_path)
        assert not found["hacked"]
        assert found["title"] == payload
        assert (found["handlers"], found["strange"], found["outside"], found["scripts"]) == (0, 0, 0, 2)
        assert found["text"].count(payload) >= 10

    def test_a_payload_that_works_would_be_seen(self, tmp_path: Path) -> None:
        for payload in PAYLOADS[:4]:
            html = render(hostile_page("text")).replace("text</p>", f"{payload}</p>", 1)
            assert told(html, tmp_path)["hacked"], payload

    @pytest.mark.slow
    def test_report_of_hostile_data(self, hostile_report: Path, tmp_path: Path) -> None:
        html = (hostile_report / "report.html").read_text(encoding="utf-8")
        found = told(html, tmp_path)
        assert not found["hacked"]
        assert found["title"] == f"Posterior report: {hostile_report.name}"
        assert (found["handlers"], found["strange"], found["outside"], found["scripts"]) == (0, 0, 0, 2)
        assert "<img src=x onerror=hacked()> [red] \\x1b[31m.csv" in found["text"]


@pytest.fixture(scope="module")
def hostile_report(probvae, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit and a report of data all of whose names are payloads; the run's own folder is one."""
    home = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    names = [
        *(name.replace('"', '""') for name in PAYLOADS[:4]),
        TURNED,
        STEERING.replace("\r", ""),
        "$\\frac{$",
        "kind",
    ]
    header = ",".join(f'"{name}"' for name in names)
    rows = (",".join(f"{v:.3f}" for v in row) for row in rng.normal(size=(60, 7)))
    labels = [name.replace('"', '""') for name in (*PAYLOADS, TURNED, STEERING.replace("\r", ""), "$x_{$", "[bold]")]
    lines = [f'{row},"{labels[n % len(labels)]}"' for n, row in enumerate(rows)]
    (home / "<img src=x onerror=hacked()> [red] \x1b[31m.csv").write_text("\n".join([header, *lines]))
    run = '"><svg onload=hacked()>'
    settings = ("--labels", "kind", "--latent-dim", "1", "--epochs", "1", "--hidden", "4", "--batch-size", "8")
    data = ("--data", "<img src=x onerror=hacked()> [red] \x1b[31m.csv")
    fitted = probvae("fit", *data, *settings, "--out", run, "--no-progress", cwd=home)
    assert fitted.returncode == 0, fitted.stderr
    done = probvae("report", run, *QUICK_REPORT, "--num-data", "12", cwd=home)
    assert done.returncode == 0, done.stderr
    for shown in (fitted.stdout, fitted.stderr, done.stdout, done.stderr):
        assert not set(shown) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "onerror=hacked()> [red] \\x1b[31m.csv" in " ".join(fitted.stdout.split())
    return home / run


@pytest.mark.slow
def test_figures_of_hostile_data_are_whole(hostile_report: Path) -> None:
    files = sorted((hostile_report / "figures").glob("*.svg"))
    assert len(files) >= 6
    for file in files:
        root = ET.fromstring(file.read_bytes())
        tags = {str(element.tag).rsplit("}", 1)[-1] for element in root.iter()}
        assert not tags & {"script", "foreignObject", "iframe", "a"}, file
        assert not any(name.startswith("on") for element in root.iter() for name in element.attrib), file


@pytest.mark.slow
def test_report_of_hostile_data_has_no_sign_that_turns_or_steers(hostile_report: Path) -> None:
    html = (hostile_report / "report.html").read_text(encoding="utf-8")
    assert not set(html) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "<script" not in html


def test_page_has_no_sign_that_turns_or_steers() -> None:
    page = render(hostile_page(TURNED + STEERING))
    assert not set(page) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "a\\u202egnp.exe\\x1b[31mred\\x1b]0;title\\x07\\x9b2J\\r" in page


def test_svg_of_any_text_is_whole(tmp_path: Path) -> None:
    figure = Figure()
    axes = figure.add_subplot()
    axes.set_title(STEERING + "--><script/>")
    axes.plot([0, 1], label=TURNED + "\x00")
    axes.legend()
    ET.fromstring(save_figure(figure, tmp_path, "it")[1].read_bytes())


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", "[link=file:///etc/passwd]x", "a\\", "[bold", ":smile:x"])
def test_markup_is_text_on_the_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_line(text)
    print_table(text, ["", "b"], [(text, text)], text)
    warn(text)
    shown = capsys.readouterr()
    assert shown.out.count(text) == 5
    assert shown.err == f"warning: {text}\n"


@pytest.mark.parametrize("text", [STEERING, TURNED, "\u2067x", "\u2028x", "\x85"])
def test_terminal_is_not_steered(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_line(text)
    print_table(text, ["", "b"], [(text, text)], text)
    warn(text)
    shown = capsys.readouterr()
    assert not set(shown.out + shown.err) & (set(text) - set("[]0123456789;" + "abcdefghijklmnopqrstuvwxyzJ."))


def test_message_about_a_file_does_not_steer(probvae, tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[1] / "stored_runs" / "v1" / "run", tmp_path / STEERING)
    done = probvae("gap", STEERING, cwd=tmp_path)
    assert done.returncode == 2
    assert not set(done.stderr) & {"\x1b", "\x07", "\x9b"}
    assert "data.csv: there is no such file" in done.stderr
