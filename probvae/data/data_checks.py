"""Checks of a data set: it is a finite, real (N, D) matrix that is not constant."""

import numpy as np

from probvae.data.on_disk import RowsOnDisk, blocks, float_dtype
from probvae.errors import DataError, ShapeError, unknown_name

# Meanings of NaN: an error, or a missing entry
MISSING = ("refuse", "mask")


def as_matrix(values: np.ndarray, name: str) -> tuple[np.ndarray, tuple[int, int] | None]:
    """``values`` as (N, D) floats, and the shape (H, W) of images (N, H, W), which are flattened."""
    image_shape = check_shape(values, name)
    x = values.reshape(len(values), -1)
    dtype = float_dtype(x.dtype)
    return x if x.dtype == dtype and x.dtype.isnative else x.astype(dtype), image_shape


def check_shape(values: np.ndarray, name: str) -> tuple[int, int] | None:
    """Raise unless ``values`` are numbers (N, D) or images (N, H, W); return the shape (H, W) of images."""
    if values.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected numbers, got dtype {values.dtype}. Save the array as float32.")
    if values.size == 0:
        raise DataError(
            f"{name}: expected at least one value, got shape {values.shape}. Check how the file was written."
        )
    if values.ndim not in (2, 3):
        raise ShapeError(
            f"{name}: expected shape (N, D), or (N, H, W) for images, got {values.shape}. "
            "One row is one datum: reshape it."
        )
    return (values.shape[1], values.shape[2]) if values.ndim == 3 else None


def check_values(x: np.ndarray | RowsOnDisk, name: str, missing: str = "refuse") -> None:
    """Raise unless all values are finite (NaN may be there with ``missing="mask"``) and not all rows are the same."""
    if missing not in MISSING:
        raise unknown_name("missing", missing, MISSING)
    bad, observed, varied, first = [], np.zeros(x.shape[1], dtype=bool), len(x) == 1, x[:1]
    for start, rows in blocks(x):
        finite = (np.isfinite(rows) | (np.isnan(rows) if missing == "mask" else False)).all(axis=1)
        bad.extend((start + np.flatnonzero(~finite)).tolist())
        observed |= ~np.isnan(rows).all(axis=0)
        varied = varied or not (rows == first).all()
    if bad:
        way_out = "Repair these rows." if missing == "mask" else "Drop these rows, or fit with missing='mask'."
        raise DataError(f"{name}: {len(bad)} of {len(x)} rows contain NaN or infinity (first: row {bad[0]}). {way_out}")
    if not observed.all():
        raise DataError(f"{name}: column {np.flatnonzero(~observed)[0]} has no observed value. Drop it.")
    if not varied:
        raise DataError(f"{name}: all rows are the same, so there is nothing to learn. Check how the file was written.")
