"""The page: every text escaped, nothing from outside, readable by all."""

import json
import math
import re
from html.parser import HTMLParser

import pytest

from probvae.diagnostics.verdicts import NotComputed, Verdict
from probvae.report.page import Page, PageSection, Picture, answer, render, worst_first
from probvae.report.tables import MOST_ENTRIES, Grid, TableRow, as_json, grids, table_rows, with_error

EVIL = "</h1><script>alert(1)</script>\"'&"
PIXEL = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"


def verdict(name: str, status: str) -> Verdict:
    return Verdict(name, status, 0.25, 0.5, f"{name} says {status}")


def page(text: str = "plain", verdicts: list[Verdict] | None = None) -> Page:
    shown = [Picture(text, PIXEL, "svg+xml", 9, 9, text)]
    rows = [TableRow(text, text, text), TableRow(text, text)]
    sections = [
        PageSection("gap", text, text, rows, [Grid(text, (text, text), ((text, text),))], shown),
        PageSection("calibration", text, text, not_computed=text),
    ]
    found = [Verdict(text, "fail", 1.0, None, text)] if verdicts is None else verdicts
    return Page(text, text, "fail", found, sections, [text], rows)


class Tags(HTMLParser):
    """The tags with their attributes, and whether each is closed in its turn."""

    VOID = ("meta", "link", "img")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


def test_every_text_is_escaped() -> None:
    html = render(page(EVIL))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == render(page("plain and long")).count("plain and long")
    tags = Tags(html)
    assert tags.named("img")[0]["alt"] == EVIL
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]


def test_nothing_comes_from_outside_and_nothing_runs() -> None:
    tags = Tags(render(page()))
    addresses = [value for _, attributes in tags.found for name, value in attributes.items() if name in ("src", "href")]
    assert all(address and address.startswith(("data:", "#")) for address in addresses)
    assert not tags.named("script")
    assert "url(" not in render(page())
    (policy,) = [meta["content"] for meta in tags.named("meta") if "http-equiv" in meta]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_links_headings_and_tables_are_accessible() -> None:
    tags = Tags(render(page()))
    names = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(names) == len(set(names))
    assert {link["href"] for link in tags.named("a")} <= {f"#{name}" for name in names}
    assert {attributes["aria-labelledby"] for attributes in tags.named("section")} <= set(names)
    assert tags.named("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in tags.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert set(levels[1:]) == {2}
    assert all(header.get("scope") in ("row", "col") for header in tags.named("th"))
    assert len(tags.named("caption")) == len(tags.named("table"))
    assert all(image["alt"] and image["width"] and image["height"] for image in tags.named("img"))
    assert any("width=device-width" in (meta.get("content") or "") for meta in tags.named("meta"))


def test_verdicts_come_first_the_worst_on_top_and_in_words() -> None:
    verdicts = [
        verdict("a", "ok"),
        *NotComputed("b", "one datum").verdicts(),
        verdict("c", "warn"),
        verdict("d", "fail"),
    ]
    assert [v.name for v in worst_first(verdicts)] == ["d", "c", "b", "a"]
    html = render(page(verdicts=verdicts))
    cells = re.findall(r'<td class="status [\w-]+"><span aria-hidden="true">(.)</span> ([\w ]+)</td>', html)
    assert cells == [("✗", "fail"), ("!", "warn"), ("–", "not computed"), ("✓", "ok")]
    assert html.index('id="verdicts"') < html.index('id="gap"') < html.index('id="advice"') < html.index('id="about"')
    assert html.count("one datum") == 1


def test_what_was_not_computed_stands_there_with_its_reason() -> None:
    assert re.search(r"<strong>Not computed:</strong> no closed form", render(page("no closed form")))


@pytest.mark.parametrize(
    ("statuses", "sentence"),
    [
        (["ok", "ok"], "Yes, as far as these 2 checks can see: all passed."),
        (["ok", "warn"], "With care: 1 of 2 checks warn, none failed."),
        (["fail", "warn", "ok"], "No, not as it is: 1 of 3 checks failed."),
        (["fail", "not computed"], "No, not as it is: 1 of 1 checks failed. 1 could not be computed."),
        (
            ["ok", "not computed"],
            "Yes, as far as these 1 checks can see: all passed. 1 could not be computed.",
        ),
        (["not computed"], "Nobody knows: of 1 checks none could be computed."),
    ],
)
def test_the_answer(statuses: list[str], sentence: str) -> None:
    assert answer([verdict(str(number), status) for number, status in enumerate(statuses)]) == sentence


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, by WCAG 2."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("number", range(3), ids=["light", "dark", "print"])
def test_contrast_is_enough_to_read(number: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", render(page()), re.DOTALL)
    assert len(blocks) == 3
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[number]))
    for text in ("ink", "quiet", "link", "ok", "warn", "fail", "not-computed"):
        for ground in ("paper", "shade"):
            light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_numbers_are_rounded_to_their_errors() -> None:
    assert with_error(123.456, 4.2) == ("123.5", "4.2")
    assert with_error(123.456, 42.0) == ("123", "42")
    assert with_error(-0.001234, 0.000056) == ("-0.001234", "0.000056")
    assert with_error(1.5, math.nan) == ("1.5", "nan")
    assert with_error(math.nan, 0.1) == ("nan", "0.10")
    assert with_error(None, 0.1) == ("–", "0.1")
    assert with_error(0.9999999999999134, 7.5e-15) == ("1", "7.5e-15")  # the rounding of an exact guide
    assert with_error(-2.1e-17, 3.5e-18) == ("-2.1e-17", "3.5e-18")


def test_every_number_of_a_summary_has_its_row() -> None:
    summary = {
        "kl": [{"value": 1.0, "standard_error": 0.25}, {"value": 2.0, "standard_error": 0.25}],
        "central": {"value": 0.9, "standard_error": 0.01, "num_pairs": 7},
        "method": "quadrature",
        "linear": True,
        "unknown": None,
        "long": list(range(MOST_ENTRIES + 3)),
    }
    rows = table_rows(summary, {"kl": "KL of latent"})
    assert rows[:7] == [
        TableRow("KL of latent 1", "1.00", "0.25"),
        TableRow("KL of latent 2", "2.00", "0.25"),
        TableRow("central", "0.900", "0.010"),
        TableRow("central: num pairs", "7"),
        TableRow("method", "quadrature"),
        TableRow("linear", "yes"),
        TableRow("unknown", "–"),
    ]
    assert rows[-1] == TableRow("long", "and 3 more, in report.json")
    assert len(rows) == 7 + MOST_ENTRIES + 1


def test_entries_with_several_parts_are_a_table_of_their_own() -> None:
    entry = {"name": "mean", "made": {"median": 1.0, "low": 0.5, "high": 2.0, "of": 0.95}, "p_value": None}
    summary = {"outer": {"rows": [entry] * (MOST_ENTRIES + 1)}, "kl": [{"value": 1.0, "standard_error": 0.25}]}
    (grid,) = grids(summary, {"outer": "all"})
    assert grid.title == f"all: rows (the first {MOST_ENTRIES} of {MOST_ENTRIES + 1})"
    assert grid.header == ("name", "made", "p value")
    assert grid.rows == (("mean", "1 [0.5, 2]", "–"),) * MOST_ENTRIES
    assert table_rows(summary) == [TableRow("kl 1", "1.00", "0.25")]


def test_json_has_no_number_that_json_does_not_know() -> None:
    content = {"a": math.nan, "b": [math.inf, 1.5, (-math.inf, "x")], 3: {"c": None, "d": True}}
    assert json.loads(json.dumps(as_json(content), allow_nan=False)) == {
        "a": None,
        "b": [None, 1.5, [None, "x"]],
        "3": {"c": None, "d": True},
    }
