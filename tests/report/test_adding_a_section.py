"""A new diagnostic with verdict, figure and section costs three files, and two lines in ``diagnose``."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from probvae import VAE
from probvae.data import Dataset
from probvae.report import build_report, sections

DIAGNOSE = importlib.import_module("probvae.diagnostics.diagnose")
DIAGNOSTIC = """
from dataclasses import dataclass

from probvae.diagnostics.verdicts import OK, Verdict


@dataclass(frozen=True)
class Width:
    scale: object

    def summary(self):
        return {"widest": float(self.scale.max())}

    def verdicts(self):
        return [Verdict("width/widest", OK, float(self.scale.max()), 9.0, "No posterior is wider than 9")]

    def tests(self):
        return []


def width(vae, x):
    return Width(vae.guide.distribution(x).stddev.detach())
"""
FIGURE = """
from probvae.report.drawing.style import new_figure, set_heading, styled


@styled
def widths(values):
    figure = new_figure(height=2)
    figure.add_subplot().hist(values.ravel())
    set_heading(figure, "How wide the posteriors are")
    return figure
"""
SECTION = """
from width import width
from widths_figure import widths

from probvae.report.sections.base import Drawn, Section, as_double


def figures(result, subject):
    yield Drawn("widths", widths(as_double(result.scale)), {"num": len(result.scale)})


WIDTH = Section(
    name="width",
    title="Width",
    question="How wide are the posteriors?",
    labels={"widest": "the widest, in units of z"},
    checks={"widest": "the widest posterior"},
    captions={"widths": "{num} widths."},
    figures=figures,
)
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The three files, and the two lines."""
    files = {"width.py": DIAGNOSTIC, "widths_figure.py": FIGURE, "width_section.py": SECTION}
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(tmp_path)])
    sections.all_sections.cache_clear()
    from width import width

    known = {"width": lambda vae, x, settings, before: width(vae, x)}
    monkeypatch.setattr(DIAGNOSE, "_SECTIONS", known)
    yield
    sections.all_sections.cache_clear()
    for name in ("width", "widths_figure", "probvae.report.sections.width_section"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("added")
def test_a_new_section_stands_in_the_page(tmp_path: Path) -> None:
    vae, x = VAE.example(), torch.zeros(5, 3)
    data = Dataset(x.numpy(), "zeros")
    source = build_report.Source(vae, x, data, "A report", "five zeros")
    build_report.write_report(source, build_report.Options(num_draws=100, quick=True), tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for text in (
        "Width: the widest posterior",
        "How wide are the posteriors?",
        "the widest, in units of z",
        "5 widths.",
    ):
        assert text in html
    assert '<a href="#width">Width: the widest posterior</a>' in html
    names = [figure["name"] for figure in json.loads((tmp_path / "out" / "report.json").read_text())["figures"]]
    assert names[0] == "widths"
    assert (tmp_path / "out" / "figures" / "widths.svg").is_file()


def test_every_diagnostic_has_its_section_with_a_label_for_each_check() -> None:
    known = sections.all_sections()
    diagnostics = list(DIAGNOSE._SECTIONS)
    assert diagnostics == [name for name in diagnostics if known[name].title and known[name].question]
    assert {name for name, section in known.items() if section.has_result} == set(diagnostics)
    assert all(section.captions and section.figures for section in known.values())
