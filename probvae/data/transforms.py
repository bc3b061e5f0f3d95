"""Scaling: fitted on training rows, applied to all rows, undone on the way out, and always written down."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from probvae.data.on_disk import RowsOnDisk, precise_dtype
from probvae.errors import ShapeError, unknown_name

SCALINGS = {
    "none": "the values as they are",
    "unit": "to [0, 1]: pixels by their largest possible value, others by the smallest and largest value present",
    "standardize": "each column to mean 0 and standard deviation 1 (constant columns are only centred)",
}
# Numbers in a chunk of rows: statistics are the same in memory and on the disk, because the chunks are
_CHUNK = 2**20
# A column whose standard deviation is below so many roundings of its largest entry is constant
_ROUNDINGS = 2


@dataclass(frozen=True, eq=False)
class Transform:
    r"""A scaling with the statistics of the rows that it was fitted on.

    .. math:: x \mapsto (x - \text{shift}) / \text{divisor}

    ``shift`` and ``divisor`` are (D,), or (1,) for all columns alike, in float64. :meth:`fit` takes the training rows;
    :meth:`apply` takes any rows, so a row becomes the same numbers whatever rows are beside it.

    >>> transform = Transform.fit(np.array([[1.0, 5.0], [3.0, 5.0]]), "standardize")
    >>> transform.apply(np.array([[5.0, 6.0]])), transform.undo(np.array([[3.0, 1.0]]))
    (array([[3., 1.]]), array([[5., 6.]]))
    """

    scaling: str = "none"
    shift: np.ndarray = field(default_factory=lambda: np.zeros(1))
    divisor: np.ndarray = field(default_factory=lambda: np.ones(1))

    @classmethod
    def fit(
        cls,
        x: np.ndarray | RowsOnDisk,
        scaling: str,
        pixel_maximum: float | None = None,
        rounding: np.ndarray | float | None = None,
    ) -> Self:
        """The transform with the name ``scaling`` for the training rows ``x`` (N, D); NaN is a missing entry.

        ``pixel_maximum`` is the largest value that a pixel of the source can have. ``rounding`` is the relative
        precision of the source, a number or (D,); by default that of the dtype of ``x``. A column that varies by less
        than two such roundings is constant, and is only centred.
        Raises :class:`~probvae.errors.UnknownNameError` for a scaling that there is not.
        """
        if scaling not in SCALINGS:
            raise unknown_name("scaling", scaling, SCALINGS)
        if scaling == "none":
            return cls()
        if scaling == "unit" and pixel_maximum is not None:
            return cls("unit", np.zeros(1), np.full(1, float(pixel_maximum)))
        if scaling == "unit":
            low, high = value_range(x)
            return cls("unit", np.full(1, low), np.full(1, high - low if high > low else 1.0))
        mean, spread, largest = _moments(x)
        least = np.finfo(np.float64).eps
        precision = np.maximum(rounding_of(x.dtype) if rounding is None else rounding, least)
        return cls("standardize", mean, np.where(spread <= _ROUNDINGS * precision * largest, 1.0, spread))

    @property
    def is_identity(self) -> bool:
        """True where values stay as they are."""
        return self.scaling == "none"

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """``rows`` (..., D) scaled, in float64."""
        return np.asarray((rows.astype(np.float64) - self.shift) / self.divisor)

    def undo(self, rows: np.ndarray) -> np.ndarray:
        """Scaled ``rows`` (..., D) in the units of the source, in float64; themselves where nothing was scaled."""
        return rows if self.is_identity else np.asarray(rows.astype(np.float64) * self.divisor + self.shift)

    def rows(self, x: np.ndarray | RowsOnDisk, dtype: np.dtype) -> np.ndarray | RowsOnDisk:
        """All rows of ``x`` (N, D) scaled, in ``dtype``: in memory, or as rows that stay on the disk.

        Raises :class:`~probvae.errors.ShapeError` for rows of another width than those that it was fitted on.
        """
        if len(self.shift) not in (1, x.shape[1]):
            raise ShapeError(
                f"data: expected {len(self.shift)} columns, as the scaling was fitted to, got {x.shape[1]}. Give data "
                "of the width of the training data."
            )
        if isinstance(x, RowsOnDisk):
            return x if self.is_identity else x.then(lambda rows: self.apply(rows).astype(dtype))
        with np.errstate(over="ignore"):  # a number that overflows becomes infinite, and is found as that
            if self.is_identity:
                return x.astype(dtype, copy=False)
            scaled = np.empty(x.shape, dtype)
            for rows in _chunks(x):
                scaled[rows] = self.apply(x[rows])
            return scaled

    def log_volume(self, num_data: int, data_dim: int) -> np.ndarray:
        """log |dx / dx'| (N, D) of the scaling x -> x': what a log density of x' exceeds one of x by, an entry."""
        return np.broadcast_to(np.log(np.abs(self.divisor)), (num_data, data_dim))

    def as_data(self) -> dict[str, Any]:
        """The transform as plain data, which :meth:`from_data` reads back bit for bit."""
        return {"scaling": self.scaling, "shift": self.shift.tolist(), "divisor": self.divisor.tolist()}

    @classmethod
    def from_data(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`as_data`. Raises ``ValueError`` for what is no transform."""
        scaling, shift, divisor = (content.get(key) for key in ("scaling", "shift", "divisor"))
        if scaling not in SCALINGS or not isinstance(shift, list) or not isinstance(divisor, list):
            raise ValueError("expected a scaling with its shift and divisor")
        numbers = [value for value in (*shift, *divisor) if isinstance(value, int | float)]
        if len(numbers) != len(shift) + len(divisor) or len(shift) != len(divisor) or not shift:
            raise ValueError("expected as many divisors as shifts")
        found = cls(str(scaling), np.array(shift, np.float64), np.array(divisor, np.float64))
        if not np.isfinite([found.shift, found.divisor]).all() or not found.divisor.all():
            raise ValueError("expected finite numbers, and no divisor of zero")
        return found


def rounding_of(dtype: np.dtype) -> float:
    """The relative precision of numbers of ``dtype``; integers have no rounding.

    >>> rounding_of(np.dtype("float32")) == 2**-23, rounding_of(np.dtype("int64"))
    (True, 0.0)
    """
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0


def column_variances(x: np.ndarray | RowsOnDisk) -> np.ndarray:
    """The variance of each column (D,) over the entries that are not NaN, in float64."""
    return _moments(x)[1] ** 2


def value_range(x: np.ndarray | RowsOnDisk) -> tuple[float, float]:
    """The smallest and the largest entry of ``x`` (N, D) that is not NaN."""
    ends = [(np.fmin.reduce(part, axis=None), np.fmax.reduce(part, axis=None)) for part in _parts(x)]
    return float(np.fmin.reduce([low for low, _ in ends])), float(np.fmax.reduce([high for _, high in ends]))


def magnitudes(x: np.ndarray | RowsOnDisk) -> tuple[np.ndarray, np.ndarray]:
    """The largest magnitude and the standard deviation (D,) of each column's observed entries."""
    _, spread, largest = _moments(x)
    return largest, spread


def _chunks(x: np.ndarray | RowsOnDisk) -> Iterator[slice]:
    step = max(1, _CHUNK // x.shape[1])
    return (slice(start, start + step) for start in range(0, len(x), step))


def _parts(x: np.ndarray | RowsOnDisk) -> Iterator[np.ndarray]:
    """All rows in chunks (n, D), in float64 where float32 cannot hold them."""
    source = x.precise() if isinstance(x, RowsOnDisk) else x
    for rows in _chunks(x):
        part = np.asarray(source[rows])
        yield part.astype(precise_dtype(part.dtype), copy=False)


def _moments(x: np.ndarray | RowsOnDisk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and largest magnitude (D,) of each column's observed entries, in two passes.

    The first pass sums differences to an entry of the column, because time stamps have digits that their sum has not.
    The second pass sums squares in units of the largest difference, which neither overflow nor underflow.
    A column without an observed entry has mean 0 and standard deviation 0.

    Source: Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", equation 1.7.
    """
    pivot = _first_observed(x)
    total, count, largest, reach = (np.zeros(x.shape[1]) for _ in range(4))
    for part in _parts(x):
        missing, centred = np.isnan(part), part - pivot
        if missing.any():
            part, centred = np.where(missing, 0.0, part), np.where(missing, 0.0, centred)
        total, count = total + centred.sum(0), count + len(part) - missing.sum(0)
        largest = np.maximum(largest, np.maximum(part.max(0), -part.min(0)))
        reach = np.maximum(reach, np.maximum(centred.max(0), -centred.min(0)))
    count = np.maximum(count, 1)
    mean = pivot + total / count
    unit = np.where(reach > 0, reach, 1.0)
    rest, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for part in _parts(x):
        centred = (part - mean) / unit
        np.nan_to_num(centred, copy=False)
        rest, squares = rest + centred.sum(0), squares + np.einsum("nd,nd->d", centred, centred)
    variance = np.maximum(squares - rest**2 / count, 0.0) / count
    return mean + unit * rest / count, unit * np.sqrt(variance), largest


def _first_observed(x: np.ndarray | RowsOnDisk) -> np.ndarray:
    """The first entry (D,) of each column that is not NaN; 0 where all are."""
    first, found = np.zeros(x.shape[1]), np.zeros(x.shape[1], dtype=bool)
    for part in _parts(x):
        observed = ~np.isnan(part)
        new = observed.any(0) & ~found
        first[new] = part[observed.argmax(0)[new], new]
        found |= new
        if found.all():
            break
    return first
