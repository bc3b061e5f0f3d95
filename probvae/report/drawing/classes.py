"""Labels of any type as colours: up to twenty classes in a legend, more on a colour bar."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probvae.report.drawing.arrays import Floats, check_same_shape
from probvae.report.drawing.style import CLASS_COLOURS

MAX_CLASSES = 20
MISSING_COLOUR = "#e3e3e3"


@dataclass(frozen=True)
class Classes:
    """``codes`` (N,) index ``names``; -1 is a missing label."""

    codes: NDArray[np.int64]
    names: list[str]
    values: list[Any]

    @property
    def is_small(self) -> bool:
        """True where a legend can name all classes."""
        return len(self.names) <= MAX_CLASSES

    @property
    def is_numeric(self) -> bool:
        return all(isinstance(value, int | float) for value in self.values)

    def numbers(self) -> Floats:
        """A number for each datum: the label itself where labels are numbers, otherwise its rank."""
        table = np.array(self.values if self.is_numeric else range(len(self.values)), dtype=np.float64)
        return np.where(self.codes >= 0, table[self.codes], np.nan)


def read_labels(labels: ArrayLike, num_data: int) -> Classes:
    """The classes among ``labels`` (N,), in sorted order."""
    array = np.asanyarray(labels)  # a masked label is missing
    check_same_shape(array, (num_data,), "labels")
    values = [None if _is_missing(value) else value for value in array.tolist()]
    known = _sorted({value for value in values if value is not None})
    rank: dict[Any, int] = {value: index for index, value in enumerate(known)}
    codes = np.array([-1 if value is None else rank[value] for value in values], dtype=np.int64)
    return Classes(codes, [_name(value) for value in known], known)


def class_colour(code: int) -> str:
    """Ten colours, used twice; -1 is pale grey."""
    return MISSING_COLOUR if code < 0 else CLASS_COLOURS[code % len(CLASS_COLOURS)]


def class_marker(code: int) -> str:
    """Discs for the first ten classes, triangles for the next ten."""
    return "o" if code < len(CLASS_COLOURS) else "^"


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not np.isfinite(value))


def _sorted(values: set[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:  # numbers and strings in one column
        return sorted(values, key=str)


def _name(value: Any) -> str:
    # labels read from a table with gaps come as floats: 3.0 is class 3
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text.replace("$", r"\$")
