"""Arrays for figures, checked, and the axis limits that hold for any values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probvae.errors import ArgumentError, ShapeError

Floats = NDArray[np.float64]


def as_array(value: ArrayLike, name: str, ndim: int) -> Floats:
    """``value`` as a float array with ``ndim`` dimensions and at least one row."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != ndim:
        raise ShapeError(f"{name}: expected {ndim} dimensions, got shape {array.shape}. Reshape {name}.")
    if array.size == 0:
        raise ArgumentError(f"{name}: expected at least one row, got shape {array.shape}. Pass more data.")
    return array


def check_same_shape(value: NDArray[Any], shape: tuple[int, ...], name: str) -> None:
    """Raise ShapeError unless ``value`` has ``shape``."""
    if value.shape != shape:
        raise ShapeError(f"{name}: expected shape {shape}, got {value.shape}. Pass one row a datum.")


def feature_titles(feature_names: Sequence[str] | None, num_features: int) -> list[str]:
    """``feature_names`` as titles, or ``x_1``, ``x_2``, ... as formulas where there are none."""
    if feature_names is None:
        return [f"$x_{{{index + 1}}}$" for index in range(num_features)]
    if len(feature_names) != num_features:
        raise ShapeError(f"feature_names: expected {num_features} names, got {len(feature_names)}. Name every column.")
    # A dollar sign would start a formula.
    return [str(name).replace("$", r"\$") for name in feature_names]


def finite(values: Floats) -> Floats:
    """The finite ones among ``values``, flat."""
    return values[np.isfinite(values)]


def data_limits(*arrays: Floats) -> tuple[float, float]:
    """Smallest and largest finite value; (0, 1) when there is none, and never an empty range."""
    values = np.concatenate([finite(array) for array in arrays])
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1.0)


def padded(low: float, high: float, *, share: float = 0.05, least: float = 1e-2) -> tuple[float, float]:
    """The limits with ``share`` of their span on both sides, at least ``least`` of their size apart."""
    smallest = least * max(abs(low), abs(high)) or 1.0
    pad = max(share * (high - low), (smallest - (high - low)) / 2)
    return low - pad, high + pad


def robust_limits(values: Floats) -> tuple[float, float]:
    """Limits that a few outliers do not stretch: Tukey's outer fences, no wider than the values.

    All values are kept where they fit without harm (the fences would be at least a third as wide), and
    where they are fewer than four: nothing can then be called an outlier.
    """
    values = finite(values)
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if values.size >= 4:
        # "higher" keeps the one bad epoch of four out of the lower quartile
        lower, upper = np.quantile(values, [0.25, 0.75], method="higher")
        reach = 3 * (upper - lower)
        fences = max(low, float(lower - reach)), min(high, float(upper + reach))
        if high - low > 3 * (fences[1] - fences[0]):
            low, high = fences
    return padded(low, high)
