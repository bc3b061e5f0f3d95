"""The numbers of a summary as rows of a table."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# as many entries of one list as a table shows; all of them stand in the JSON file
MOST_ENTRIES = 16
_LONGEST_NUMBER = 12
# what tells one entry of a list from the others, better than its place does
_NAMES = ("name", "expected")
_ESTIMATE = {"value", "standard_error"}


@dataclass(frozen=True)
class Number:
    """One row: what it is, the value, and its standard error ("" where it has none)."""

    label: str
    value: str
    error: str = ""

    @property
    def is_text(self) -> bool:
        """Whether the value is words."""
        return not self.error and len(self.value) > _LONGEST_NUMBER


def numbers(summary: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> list[Number]:
    """The rows of ``summary``, nested ones with the outer name in front; ``labels`` replace names.

    >>> numbers({"total": {"value": 1.2345, "standard_error": 0.0321}, "num_data": 5}, {"total": "loss"})
    [Number(label='loss', value='1.234', error='0.032'), Number(label='num data', value='5', error='')]
    """
    found = []
    for name, value in summary.items():
        found += list(_rows((labels or {}).get(name, name.replace("_", " ")), value))
    return found


def _rows(label: str, value: Any) -> Iterator[Number]:
    if isinstance(value, Mapping):
        known = _ESTIMATE if value.keys() >= _ESTIMATE else set()
        if known:
            yield Number(label, *with_error(value["value"], value["standard_error"]))
        for name in (name for name in value if name not in known):
            yield from _rows(f"{label}: {str(name).replace('_', ' ')}", value[name])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield from _entries(label, value)
    else:
        yield Number(label, as_text(value))


def _entries(label: str, values: Sequence[Any]) -> Iterator[Number]:
    for place, value in enumerate(values[:MOST_ENTRIES], start=1):
        name = next((key for key in _NAMES if isinstance(value, Mapping) and key in value), None)
        if name is None:
            yield from _rows(f"{label} {place}", value)
        else:
            rest = {key: entry for key, entry in value.items() if key != name}
            yield from _rows(f"{label} {as_text(value[name])}", rest)
    if len(values) > MOST_ENTRIES:
        yield Number(label, f"and {len(values) - MOST_ENTRIES} more, in report.json")


def with_error(value: float | None, error: float | None) -> tuple[str, str]:
    """Both to the second digit of the error.

    >>> with_error(5.07281, 0.58392), with_error(0.5, None), with_error(2.0, 0.0)
    (('5.07', '0.58'), ('0.5', ''), ('2', '0'))
    """
    if value is None or error is None or not error > 0 or not math.isfinite(error):
        return as_text(value), "" if error is None else as_text(error)
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f}", f"{error:.{digits}f}"


def as_text(value: Any) -> str:
    """A number to four digits, anything else as it is."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def short_text(value: float | None) -> str:
    """A number to three digits."""
    return "–" if value is None else f"{value:.3g}"


def as_json(value: Any) -> Any:
    """``value`` with None in the place of numbers that JSON does not know: NaN and the infinities."""
    if isinstance(value, Mapping):
        return {str(name): as_json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
