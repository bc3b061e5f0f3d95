"""Scaling and binarisation: always explicit, always written down."""

from dataclasses import replace

import numpy as np

from probvae.data.dataset import Dataset
from probvae.errors import SupportError, unknown_name

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
    x = _to_unit(data.x, pixel_maximum) if scaling == "unit" else _standardized(data.x)
    return replace(data, x=x, scaling=scaling)


def binarize(data: Dataset, binarization: str, seed: int) -> Dataset:
    """``data`` with the values made 0 or 1 (``fresh``: only marked, and checked)."""
    if binarization not in BINARIZATIONS:
        raise unknown_name("binarization", binarization, BINARIZATIONS)
    if binarization == "none":
        return data
    low, high = float(np.nanmin(data.x)), float(np.nanmax(data.x))
    if low < 0 or high > 1:
        raise SupportError(
            f"data: binarization={binarization!r} needs values in [0, 1], got {low:g} to {high:g}. Add scaling='unit'."
        )
    missing = np.isnan(data.x)
    if binarization == "fresh" and missing.any():
        raise SupportError("data: binarization='fresh' knows no missing entries. Use binarization='fixed'.")
    x = data.x
    if binarization == "fixed":
        x = np.random.default_rng(seed).binomial(1, np.nan_to_num(x)).astype(x.dtype)
    elif binarization == "threshold":
        x = (x > 0.5).astype(x.dtype)
    return replace(data, x=np.where(missing, x.dtype.type(np.nan), x), binarization=binarization)


def _to_unit(x: np.ndarray, pixel_maximum: float | None) -> np.ndarray:
    if pixel_maximum is not None:
        return x / x.dtype.type(pixel_maximum)
    low, high = np.nanmin(x), np.nanmax(x)
    return np.asarray((x - low) / (high - low))


def _standardized(x: np.ndarray) -> np.ndarray:
    centred = x.astype(np.float64) - np.nanmean(x, 0, dtype=np.float64)
    spread = np.nanstd(centred, 0)
    # rounding leaves a constant column with a spread of about its own precision, not with zero
    constant = spread <= 1e-6 * np.nanmax(np.abs(x), 0)
    return (centred / np.where(constant, 1.0, spread)).astype(x.dtype)
