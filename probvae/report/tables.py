"""The numbers of a summary as rows of a table, as text, and as JSON."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probvae.diagnostics.verdicts import to_second_digit

# A table shows so many entries of a list, and the JSON file all of them.
MOST_ENTRIES = 16
_NEXT_TO_NOTHING = 1e-6
# A number with an error that is smaller than this share of it is as good as exact.
_SMALLEST_SHARE = 1e-4
_LONGEST_NUMBER = 10
_ESTIMATE = {"value", "standard_error"}
_RANGE = {"median", "low", "high"}


@dataclass(frozen=True)
class TableRow:
    """One row: what it is, the value, and its standard error ("" where it has none)."""

    label: str
    value: str
    error: str = ""

    @property
    def is_text(self) -> bool:
        """True where the value is words, which need more room than a number."""
        return not self.error and len(self.value) > _LONGEST_NUMBER


@dataclass(frozen=True)
class Grid:
    """A table of its own: entries that have the same parts."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def table_rows(summary: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> list[TableRow]:
    """The rows of ``summary``, nested ones with the outer name in front.

    ``labels`` replace names: that of an entry by ``"total"``, that of an entry inside of another by ``"total.kind"``.

    >>> table_rows({"total": {"value": 1.2345, "standard_error": 0.0321}, "num_data": 5}, {"total": "loss"})
    [TableRow(label='loss', value='1.234', error='0.032'), TableRow(label='num data', value='5', error='')]
    """
    return [part for part in _parts(summary, labels or {}) if isinstance(part, TableRow)]


def grids(summary: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> list[Grid]:
    """The lists in ``summary`` whose entries have several parts, which :func:`table_rows` leaves out.

    >>> grids({"coverage": [{"expected": 0.5, "found": {"value": 0.48, "standard_error": 0.02}}]})[0].rows
    (('0.5', '0.480 ± 0.020'),)
    """
    return [part for part in _parts(summary, labels or {}) if isinstance(part, Grid)]


def _parts(summary: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[TableRow | Grid]:
    for name, value in summary.items():
        yield from _rows(name, labels.get(name, _words(name)), value, labels)


def _rows(path: str, label: str, value: Any, labels: Mapping[str, str]) -> Iterator[TableRow | Grid]:
    if isinstance(value, Mapping):
        known = _ESTIMATE if value.keys() >= _ESTIMATE else set()
        if known:
            yield TableRow(label, *with_error(value["value"], value["standard_error"]))
        for name in (name for name in value if name not in known):
            inner = f"{path}.{name}"
            yield from _rows(inner, labels.get(inner, f"{label}: {_words(name)}"), value[name], labels)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield from _entries(path, label, value, labels)
    else:
        yield TableRow(label, short_text(value) if path.endswith("p_value") else as_text(value))


def _entries(path: str, label: str, values: Sequence[Any], labels: Mapping[str, str]) -> Iterator[TableRow | Grid]:
    if values and all(isinstance(value, Mapping) and not value.keys() >= _ESTIMATE for value in values):
        yield _grid(path, label, values, labels)
        return
    for place, value in enumerate(values[:MOST_ENTRIES], start=1):
        yield from _rows(path, f"{label} {place}", value, labels)
    if len(values) > MOST_ENTRIES:
        yield TableRow(label, f"and {len(values) - MOST_ENTRIES} more, in report.json")


def _grid(path: str, label: str, values: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> Grid:
    columns = tuple(values[0])
    rows = tuple(tuple(_cell(value.get(name)) for name in columns) for value in values[:MOST_ENTRIES])
    more = f" (the first {MOST_ENTRIES} of {len(values)})" if len(values) > MOST_ENTRIES else ""
    return Grid(label + more, tuple(labels.get(f"{path}.{name}", _words(name)) for name in columns), rows)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return short_text(value)
    if not isinstance(value, Mapping):
        return as_text(value)
    if value.keys() >= _ESTIMATE:
        number, error = with_error(value["value"], value["standard_error"])
        return f"{number} ± {error}" if error else number
    if value.keys() >= _RANGE:
        return f"{_cell(value['median'])} [{_cell(value['low'])}, {_cell(value['high'])}]"
    return "; ".join(f"{_words(name)} {_cell(entry)}" for name, entry in value.items())


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def with_error(value: float | None, error: float | None) -> tuple[str, str]:
    """Both to the second digit of the error; to a few digits of their own where that would be many zeros.

    >>> with_error(5.07281, 0.58392), with_error(0.5, None), with_error(2.0, 0.0), with_error(0.1234567, 3.4e-15)
    (('5.07', '0.58'), ('0.5', ''), ('2', '0'), ('0.1235', '3.4e-15'))
    """
    if value is None or error is None or not error > 0 or not math.isfinite(error):
        return as_text(value), "" if error is None else as_text(error)
    if error < _SMALLEST_SHARE * abs(value) or max(abs(value), error) < _NEXT_TO_NOTHING:
        return as_text(value), f"{error:.2g}"
    return to_second_digit(value, error)


def as_text(value: Any) -> str:
    """A number to four digits, anything else as it is."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def short_text(value: float | None) -> str:
    """A number to three digits; one that is next to nothing as that.

    >>> short_text(0.12345), short_text(1.3e-43), short_text(0.0), short_text(None)
    ('0.123', '< 1e-6', '0', '–')
    """
    if value is None:
        return "–"
    return "< 1e-6" if 0 < value < _NEXT_TO_NOTHING else f"{value:.3g}"


def as_json(value: Any) -> Any:
    """``value`` with None in the place of numbers that JSON does not know: NaN and the infinities."""
    if isinstance(value, Mapping):
        return {str(name): as_json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
