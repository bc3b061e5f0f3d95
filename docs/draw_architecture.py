"""Draw the rooms of the package and who imports whom, as the imports are today.

    python docs/draw_architecture.py

writes docs/architecture.svg and the table of imports in docs/architecture.md. A test compares both with the code; when
it fails, run this and look at what changed.
"""

import ast
import re
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from textwrap import shorten

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "benchmarks"))

from house_code import PACKAGE  # noqa: E402  # the path above comes first
from house_rooms import INFERENCE_LEVELS, LEVELS, imports, rooms  # noqa: E402

PICTURE, PAGE = DOCS / "architecture.svg", DOCS / "architecture.md"
BEGIN, END = "<!-- imports: begin (docs/draw_architecture.py writes them) -->", "<!-- imports: end -->"
Arrows = Mapping[str, set[str]]

_WIDTH, _ROW, _BOX, _LEFT, _ARCS = 900, 46, 34, 20, 680
_LETTERS = 86  # of a summary in a box
_STYLE = (
    "text{font:14px sans-serif;fill:#222} .small{font-size:12px;fill:#555} .title{font-size:16px;font-weight:bold} "
    "rect{fill:#eef3fa;stroke:#5b7db1} path{fill:none;stroke:#c4ccd8} .direct{stroke:#35588f;stroke-width:1.6}"
)


def room_imports(folder: Path = PACKAGE, inside: str = "") -> dict[str, set[str]]:
    """For each room of ``folder``, highest level first, the other rooms of it that its files import."""
    levels = INFERENCE_LEVELS if inside else LEVELS
    there = rooms(folder)
    found: dict[str, set[str]] = {name: set() for level in reversed(levels) for name in level if name in there}
    for file, targets in imports(PACKAGE).items():
        for target in targets:
            if file.startswith(inside) and target.startswith(inside):
                room, other = (path.removeprefix(inside).split("/")[0].removesuffix(".py") for path in (file, target))
                if room in found and other in found and room != other:
                    found[room].add(other)
    return found


def direct(arrows: Arrows) -> set[tuple[str, str]]:
    """The arrows that no way over other rooms replaces."""

    def reached(room: str, seen: frozenset[str] = frozenset()) -> set[str]:
        return {end for other in arrows[room] - seen for end in {other} | reached(other, seen | {room})}

    return {
        (room, other)
        for room, others in arrows.items()
        for other in others
        if not any(other in reached(between) for between in others - {other})
    }


def summary(folder: Path, room: str) -> str:
    """The first sentence of a room's docstring, as far as it fits into a box."""
    file = folder / room / "__init__.py" if (folder / room).is_dir() else folder / f"{room}.py"
    text = " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0].split())
    return shorten(re.split(r"\.(?: |$)", text)[0], _LETTERS, placeholder=" ...")


def panel(title: str, folder: Path, arrows: Arrows, top: int) -> list[str]:
    """The rooms below each other; every arrow goes down on the right, the direct ones dark."""
    middle = {room: top + 34 + number * _ROW + _BOX // 2 for number, room in enumerate(arrows)}
    lines = [f'<text class="title" x="{_LEFT}" y="{top + 18}">{escape(title)}</text>']
    dark = direct(arrows)
    pairs = [(room, other) for room, others in arrows.items() for other in others]
    for room, other in sorted(pairs, key=lambda pair: (pair in dark, middle[pair[0]], middle[pair[1]])):
        start, end = middle[room] + 5, middle[other] - 5
        reach = _ARCS + 20 + 0.3 * abs(end - start)
        kind = ' class="direct" marker-end="url(#head)"' if (room, other) in dark else ""
        lines.append(f'<path{kind} d="M{_ARCS} {start} C{reach:.0f} {start} {reach:.0f} {end} {_ARCS + 2} {end}"/>')
    for room, y in middle.items():
        name = room + ("/" if (folder / room).is_dir() else ".py")
        lines += [
            f'<rect x="{_LEFT}" y="{y - _BOX // 2}" width="{_ARCS - _LEFT}" height="{_BOX}" rx="5"/>',
            f'<text x="{_LEFT + 10}" y="{y + 5}">{escape(name)}</text>',
            f'<text class="small" x="{_LEFT + 125}" y="{y + 5}">{escape(summary(folder, room))}</text>',
        ]
    return lines


def picture() -> str:
    """The SVG: the rooms of the package, and below them the rooms of ``inference``."""
    outer, inner = room_imports(), room_imports(PACKAGE / "inference", "inference/")
    second = 34 + len(outer) * _ROW + 30
    height = second + 34 + len(inner) * _ROW + 10
    head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        f"<style>{_STYLE}</style>",
        f'<defs>{head}<path d="M0 0 L8 4 L0 8 z" style="fill:#35588f;stroke:none"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height}" style="fill:#fff;stroke:none"/>',
        *panel("probvae: an arrow goes from the room that imports to the room that is imported", PACKAGE, outer, 0),
        *panel("probvae/inference", PACKAGE / "inference", inner, second),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def table() -> str:
    """The same as text: each room and what it imports, direct imports in bold."""
    lines = []
    for title, arrows in (
        ("room", room_imports()),
        ("room of inference", room_imports(PACKAGE / "inference", "inference/")),
    ):
        dark = direct(arrows)
        lines += [f"| {title} | imports |", "|---|---|"]
        for room, others in arrows.items():
            names = [f"**{other}**" if (room, other) in dark else other for other in arrows if other in others]
            lines.append(f"| `{room}` | {', '.join(names) or 'no other room'} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def page() -> str:
    """docs/architecture.md with the table of today."""
    before, rest = PAGE.read_text().split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PICTURE.write_text(picture())
    PAGE.write_text(page())
