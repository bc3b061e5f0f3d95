"""What every data set must be: a finite, real (N, D) matrix that is not constant."""

import numpy as np

from probvae.errors import DataError, ShapeError, unknown_name

# what NaN may be: an error, or a missing entry
MISSING = ("refuse", "mask")


def as_matrix(values: np.ndarray, name: str) -> tuple[np.ndarray, tuple[int, int] | None]:
    """``values`` as (N, D) floats; images (N, H, W) are flattened, and their shape is given back."""
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
    image_shape = (values.shape[1], values.shape[2]) if values.ndim == 3 else None
    return _as_float(values.reshape(len(values), -1)), image_shape


def check_values(x: np.ndarray, name: str, missing: str = "refuse") -> None:
    """Raise unless all values are finite (NaN may be there with ``missing="mask"``) and not all rows are the same."""
    if missing not in MISSING:
        raise unknown_name("missing", missing, MISSING)
    finite = (np.isfinite(x) | (np.isnan(x) if missing == "mask" else False)).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        way_out = "Repair these rows." if missing == "mask" else "Drop these rows, or fit with missing='mask'."
        raise DataError(f"{name}: {len(bad)} of {len(x)} rows contain NaN or infinity (first: row {bad[0]}). {way_out}")
    empty = np.flatnonzero(np.isnan(x).all(axis=0))
    if len(empty):
        raise DataError(f"{name}: column {empty[0]} has no observed value. Drop it.")
    if len(x) > 1 and (x == x[0]).all():
        raise DataError(f"{name}: all rows are the same, so there is nothing to learn. Check how the file was written.")


def _as_float(x: np.ndarray) -> np.ndarray:
    if x.dtype in (np.float32, np.float64) and x.dtype.isnative:
        return x
    return x.astype(np.float64 if x.dtype.itemsize > 4 and x.dtype.kind == "f" else np.float32)
