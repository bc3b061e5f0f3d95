"""The report as one HTML page that needs nothing else: no script, no network, no other file."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from probvae.diagnostics.verdicts import FAIL, NOT_COMPUTED, OK, WARN, Verdict
from probvae.foundation.text import printable
from probvae.report.tables import Grid, TableRow, short_text

if TYPE_CHECKING:
    from jinja2 import Template

# A reader wants to see first what went wrong.
STATUSES = (FAIL, WARN, NOT_COMPUTED, OK)
SYMBOLS = {FAIL: "✗", WARN: "!", NOT_COMPUTED: "–", OK: "✓"}


@dataclass(frozen=True)
class Picture:
    """A figure inside of the page: its bytes, its title, its size in CSS pixels, and its caption."""

    title: str
    content: bytes
    kind: str  # "svg+xml" or "png"
    width: int
    height: int
    caption: str

    @property
    def uri(self) -> str:
        """The bytes as a data URI."""
        return f"data:image/{self.kind};base64,{b64encode(self.content).decode('ascii')}"


@dataclass(frozen=True)
class PageSection:
    """One diagnostic: its question, its tables and figures, or the reason why there are none."""

    anchor: str
    title: str
    lead: str
    rows: Sequence[TableRow] = ()
    grids: Sequence[Grid] = ()
    pictures: Sequence[Picture] = ()
    not_computed: str | None = None


@dataclass(frozen=True)
class Page:
    """The content of a page.

    ``subject`` is the line under the title, ``about`` says how the report was made, and ``checks`` what the verdicts
    are called, by their names.
    """

    title: str
    subject: str
    status: str
    verdicts: Sequence[Verdict]
    sections: Sequence[PageSection]
    advice: Sequence[str]
    about: Sequence[TableRow]
    checks: Mapping[str, str] = field(default_factory=dict)


class _Row(NamedTuple):
    """A verdict in the table: its name in words, and the address of its section (None where it has none)."""

    verdict: Verdict
    name: str
    anchor: str | None


def render(page: Page) -> str:
    """The page as HTML. Every text is escaped: a label may hold anything."""
    style = files("probvae.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    verdicts = worst_first(page.verdicts)
    anchors = {section.anchor for section in page.sections}
    places = [verdict.name.split("/")[0] for verdict in verdicts]
    rows = [
        _Row(verdict, page.checks.get(verdict.name, _words(verdict.name)), place if place in anchors else None)
        for verdict, place in zip(verdicts, places, strict=True)
    ]
    return _template().render(page=page, rows=rows, answer=answer(verdicts), style=style)


def worst_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Failed checks first, then warnings, then checks that were not computed, then those that passed."""
    return sorted(verdicts, key=lambda verdict: STATUSES.index(verdict.status))


def answer(verdicts: Sequence[Verdict]) -> str:
    """A sentence or two that say whether the posterior can be trusted.

    >>> answer([Verdict("gap/total", "ok", 0.01, 0.1, ""), Verdict("importance/ess", "warn", 0.3, 0.1, "")])
    'With care: 1 of 2 checks warn, none failed.'
    """
    failed, warned, missing, _ = ([v for v in verdicts if v.status == status] for status in STATUSES)
    num_done = len(verdicts) - len(missing)
    rest = f" {len(missing)} could not be computed." if missing else ""
    if not num_done:
        return f"Nobody knows: of {len(missing)} checks none could be computed."
    if failed:
        return f"No, not as it is: {len(failed)} of {num_done} checks failed.{rest}"
    if warned:
        return f"With care: {len(warned)} of {num_done} checks warn, none failed.{rest}"
    return f"Yes, as far as these {num_done} checks can see: all passed.{rest}"


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Jinja's autoescape by name knows the ending .html, and not .j2.
    environment = Environment(
        loader=PackageLoader("probvae.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"short": short_text, "symbol": SYMBOLS.__getitem__}
    return environment.get_template("report.html.j2")


def _shown(value: object) -> object:
    """A text without the characters that a page cannot hold, or that would turn its direction round."""
    return printable(value) if type(value) is str else value


def _words(name: str) -> str:
    """ "latent_usage/active-units" as a reader would write it."""
    return name.replace("/", ": ").replace("_", " ").replace("-", " ")
