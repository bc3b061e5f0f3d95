"""Scaling and binarisation, which are always explicit and always written down."""

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import numpy as np

from probvae.data.dataset import Dataset
from probvae.data.on_disk import RowsOnDisk, blocks
from probvae.errors import ConfigError, SupportError, unknown_name

Step = Callable[[np.ndarray], np.ndarray]

SCALINGS = {
    "none": "the values as they are",
    "unit": "to [0, 1]: pixels by their largest possible value, others by the smallest and largest value present",
    "standardize": "each column to mean 0 and standard deviation 1 (constant columns are only centred)",
}
BINARIZATIONS = {
    "none": "the values as they are",
    "fixed": "x ~ Bernoulli(x), drawn once",
    "threshold": "1 where x > 0.5, else 0",
    "fresh": "x ~ Bernoulli(x), drawn anew at every use",
}


def scale(data: Dataset, scaling: str, pixel_maximum: float | None = None) -> Dataset:
    """``data`` scaled by name; ``pixel_maximum`` is the largest value that a pixel of the source can have."""
    if scaling not in SCALINGS:
        raise unknown_name("scaling", scaling, SCALINGS)
    if scaling == "none":
        return data
    x = data.x
    step = _to_unit(x, pixel_maximum) if scaling == "unit" else _standardized(x)
    return replace(data, x=x.then(step) if isinstance(x, RowsOnDisk) else step(x), scaling=scaling)


def binarize(data: Dataset, binarization: str, seed: int) -> Dataset:
    """``data`` with values 0 and 1 (``fresh``: the values stay, are checked, and are marked)."""
    if binarization not in BINARIZATIONS:
        raise unknown_name("binarization", binarization, BINARIZATIONS)
    if binarization == "none":
        return data
    low, high = _range(data.x)
    if low < 0 or high > 1:
        raise SupportError(
            f"data: binarization={binarization!r} needs values in [0, 1], got {low:g} to {high:g}. Add scaling='unit'."
        )
    x = data.x
    if binarization == "fresh":
        if any(np.isnan(rows).any() for _, rows in blocks(x)):
            raise SupportError("data: binarization='fresh' knows no missing entries. Use binarization='fixed'.")
    elif isinstance(x, RowsOnDisk):
        x = x.then(_above_half) if binarization == "threshold" else _no_fixed_draws(x)
    else:
        x = _above_half(x) if binarization == "threshold" else _drawn(x, seed)
    return replace(data, x=x, binarization=binarization)


def column_variances(x: np.ndarray | RowsOnDisk) -> np.ndarray:
    """The variance of each column (D,) over the entries that are not NaN, in float64."""
    if isinstance(x, RowsOnDisk):
        return _moments(x)[1]
    return np.nanvar(x, axis=0, dtype=np.float64)


def _above_half(x: np.ndarray) -> np.ndarray:
    return _with_missing(x, (x > 0.5).astype(x.dtype))


def _drawn(x: np.ndarray, seed: int) -> np.ndarray:
    return _with_missing(x, np.random.default_rng(seed).binomial(1, np.nan_to_num(x)).astype(x.dtype))


def _with_missing(x: np.ndarray, binary: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x), x.dtype.type(np.nan), binary)


def _no_fixed_draws(x: RowsOnDisk) -> NoReturn:
    raise ConfigError(
        f"binarization: 'fixed' draws are kept, and these data ({x.nbytes / 2**20:.0f} MB) stay on the disk. Use "
        "'fresh' or 'threshold', raise in_memory_limit, or save binary data."
    )


def _to_unit(x: np.ndarray | RowsOnDisk, pixel_maximum: float | None) -> Step:
    if pixel_maximum is not None:
        return lambda rows: rows / rows.dtype.type(pixel_maximum)
    low, high = map(x.dtype.type, _range(x))
    return lambda rows: np.asarray((rows - low) / (high - low))


def _standardized(x: np.ndarray | RowsOnDisk) -> Step:
    mean, variance = _moments(x)
    spread, largest = np.sqrt(variance), np.zeros(x.shape[1])
    for _, rows in blocks(x):
        largest = np.maximum(largest, np.nan_to_num(np.abs(rows)).max(axis=0))
    # Rounding leaves a constant column with a spread of about its own precision, and not with zero
    divisor = np.where(spread <= 1e-6 * largest, 1.0, spread)
    return lambda rows: ((rows.astype(np.float64) - mean) / divisor).astype(rows.dtype)


def _range(x: np.ndarray | RowsOnDisk) -> tuple[float, float]:
    ends = [(np.fmin.reduce(rows, axis=None), np.fmax.reduce(rows, axis=None)) for _, rows in blocks(x)]
    return float(np.fmin.reduce([low for low, _ in ends])), float(np.fmax.reduce([high for _, high in ends]))


def _moments(x: np.ndarray | RowsOnDisk) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (D,) of each column's observed entries, in one pass that merges the moments of blocks.

    Source: Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", equation 2.1.
    """
    observed, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    mean = np.nan_to_num(x[:1][0].astype(np.float64))
    for _, rows in blocks(x):
        centred = rows - mean
        there = len(rows) - np.isnan(rows).sum(0)
        np.nan_to_num(centred, copy=False)
        total, both = centred.sum(0), np.maximum(observed + there, 1)
        squares += np.einsum("nd,nd->d", centred, centred) - total**2 / both
        observed, mean = observed + there, mean + total / both
    return mean, squares / observed
