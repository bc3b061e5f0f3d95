"""The measures of the house: files, lines, rooms, circles, lengths, shapes, private names, English, the walk of x.

    python benchmarks/house.py [--names] [--no-walk] [--package probvae]

prints one line a measure with its limit, and writes every number, with the places behind it, to
benchmarks/results/house.json. --names prints the places too. The tests in tests/test_house.py call the same functions.

The definitions:

- A room is a folder or a module that stands directly in the package or in ``inference``; ``__init__`` and ``__main__``
  are none.
- An import is an ``import`` statement anywhere in a file: at its top, in a function, or under ``TYPE_CHECKING``. Its
  target is the file that defines the module that the statement names.
- A code line carries a token of code; blank lines, comments and docstrings carry none. The code lines of a function go
  from its ``def`` (decorators apart) to its end.
- The parameters of a function are all that its signature names, ``self`` and ``cls`` apart.
- A tensor function is a public function or method whose annotations mention ``Tensor`` (``dict[str, Tensor]`` apart).
  Its docstring (or, where it has none, that of the method which it overrides) names a shape when it holds one in
  parentheses, ``(N, D)``, ``(N,)``, ``(...)``, ``()``, or the word "shape" or "scalar".
- A private name is an import of a name of another package with a leading underscore, or an access to an attribute with
  one leading underscore that nothing in the package defines. Each should stand in one file; those that torch's own
  distributions use to write a subclass may stand in each distribution.
- A riddle is a comment or a docstring that begins with Of, In, What, Where or Whether.
- The walk of x is in house_walk.py.
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from house_code import (
    MOST_FUNCTION_LINES,
    MOST_LINES,
    MOST_PARAMETERS,
    PACKAGE,
    code_lines,
    files,
    folders,
    functions,
    long_files,
    long_functions,
    num_lines,
    private_places,
    riddles,
    scattered_names,
    tensor_functions,
    wide_functions,
)
from house_rooms import (
    badly_filled_folders,
    circles,
    folders_without_page,
    loose_underscores,
    repeated_names,
    rooms,
    upward_imports,
)
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]


class Measure(NamedTuple):
    """One number of the house, the limit that it should keep, and the places behind it."""

    name: str
    value: float
    limit: str
    places: Any = ()


def measures(package: Path = PACKAGE) -> list[Measure]:
    """All measures that are read from the files; the walk of x is not among them."""
    all_files, all_functions = files(package), functions(package)
    lengths = sorted(function.code_lines for function in all_functions)
    worst = sorted(all_functions, key=lambda function: -function.code_lines)[:10]
    shapes = tensor_functions(package)
    private = private_places(package)
    parts = {
        "rooms at the top": (rooms(package), "at most 15"),
        "rooms in inference": (rooms(package / "inference"), "at most 13"),
        "circles of files": (circles(package), "0"),
        "upward imports": (upward_imports(package), "0"),
        f"files over {MOST_LINES} lines": (long_files(package), "0"),
        f"functions over {MOST_FUNCTION_LINES} code lines": (long_functions(package), "0"),
        f"functions with more than {MOST_PARAMETERS} parameters": (wide_functions(package), "at most 2"),
        "public tensor functions without a shape": ([name for name, named in shapes.items() if not named], "0"),
        "private names in more than one file": (scattered_names(package), "0"),
        "comments and docstrings that begin as riddles": (riddles(package), "0"),
        "file names that occur twice": (repeated_names(package), "0"),
        "underscore modules outside a family": (loose_underscores(package), "0"),
        "folders with fewer than 3 or more than 15 files": (badly_filled_folders(package), "0"),
        "folders without a page": (folders_without_page(package), "0"),
    }
    return [
        Measure("files", len(all_files), "at most 210"),
        Measure("folders", len(folders(package)), ""),
        Measure("lines", sum(num_lines(file) for file in all_files), "at most 24,000"),
        Measure("code lines", sum(len(code_lines(file)) for file in all_files), ""),
        Measure("functions", len(lengths), ""),
        Measure("function code lines, median", statistics.median(lengths), "5"),
        Measure("function code lines, 90th percentile", lengths[int(0.9 * len(lengths))], ""),
        Measure("function code lines, longest", lengths[-1], f"at most {MOST_FUNCTION_LINES}", _by_place(worst)),
        *(Measure(name, len(places), limit, places) for name, (places, limit) in parts.items()),
        Measure("share of tensor functions with a shape", round(sum(shapes.values()) / len(shapes), 3), "1"),
        Measure("files with private names of other packages", len(private), ""),
        Measure("private names of other packages", sum(map(len, private.values())), "", private),
    ]


def _by_place(found: list[Any]) -> dict[str, int]:
    return {function.place: function.code_lines for function in found}


def walk_measures() -> list[Measure]:
    """The walk of x through the package that is installed."""
    from house_walk import num_reentries, num_returns, walk_of_x

    walk = walk_of_x()
    return [
        Measure("files that x visits", len({step.file for step in walk}), ""),
        Measure("the walk of x: returns to a file", num_returns(walk), "at most 4", [step.file for step in walk]),
        Measure("the walk of x: calls into a file that it had left", num_reentries(walk), ""),
    ]


def show(found: list[Measure], names: bool, console: Console) -> None:
    """A table; with ``names`` the places below it."""
    table = Table("measure", "value", "limit", title="The house")
    for measure in found:
        table.add_row(measure.name, f"{measure.value:,g}", measure.limit)
    console.print(table)
    for measure in found if names else []:
        if measure.places:
            console.print(f"\n[bold]{measure.name}[/bold]")
            items = measure.places.items() if isinstance(measure.places, dict) else measure.places
            for item in items:
                console.print(f"  {item}", highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", action="store_true", help="print the places behind each number")
    parser.add_argument("--no-walk", action="store_true", help="read the files only: no fit")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="the package's folder")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/house.json")
    options = parser.parse_args()
    found = measures(options.package.resolve())
    if not options.no_walk and options.package.resolve() == PACKAGE:
        found += walk_measures()
    show(found, options.names, Console(width=max(100, int(os.environ.get("COLUMNS", 0)))))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([measure._asdict() for measure in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
