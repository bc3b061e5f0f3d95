"""A data set: a finite, real (N, D) matrix that is not constant, and what is known about it."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from probvae.data.on_disk import RowsOnDisk, blocks, precise_dtype
from probvae.data.transforms import Transform
from probvae.errors import DataError, ShapeError, unknown_name

# Meanings of NaN: an error, or a missing entry
MISSING = ("refuse", "mask")
# Rows a chunk: few, so that the fingerprint of a memory-mapped file needs little memory
_CHUNK = 4096


@dataclass(frozen=True)
class LinearGaussianTruth:
    """The parameters that made a synthetic set: x = W z + b + sqrt(c) eps."""

    weight: np.ndarray  # W (D, d)
    bias: np.ndarray  # b (D,)
    variance: float  # c


@dataclass(frozen=True)
class Dataset:
    """N data of width D, with the scaling and binarisation that they went through.

    ``x`` is (N, D), float32 or float64, possibly memory-mapped, or stays on the disk
    (:class:`~probvae.data.RowsOnDisk`); NaN is a missing entry. ``labels`` (N,) are for
    colours, and for models that are conditional on them; ``covariates`` (N, C) and ``exposure`` (N,) are conditioned
    on, and not modelled. ``image_shape`` (H, W) makes a row an image; ``feature_names`` are a table's columns.
    A missing label is masked: ``labels`` are a masked array then. ``transform`` is the scaling that ``x`` went through.
    ``binarization="fresh"``: the values are probabilities in [0, 1], to be drawn anew at every use. ``rows`` (N,) are
    the numbers of these rows in the user's data, counted from 0; None where they are all rows in order.
    """

    x: np.ndarray | RowsOnDisk
    name: str
    labels: np.ndarray | None = None
    image_shape: tuple[int, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    scaling: str = "none"
    binarization: str = "none"
    truth: LinearGaussianTruth | None = None
    covariates: np.ndarray | None = None
    exposure: np.ndarray | None = None
    transform: Transform = field(default_factory=Transform)
    rows: np.ndarray | None = None

    @property
    def num_data(self) -> int:
        """N."""
        return int(self.x.shape[0])

    @property
    def data_dim(self) -> int:
        """D."""
        return int(self.x.shape[1])

    @property
    def row_numbers(self) -> np.ndarray:
        """The rows' numbers (N,) in the user's data, counted from 0."""
        return np.arange(self.num_data) if self.rows is None else self.rows

    def take(self, rows: np.ndarray | slice) -> Self:
        """The data of the rows that ``rows`` selects, by number or by slice."""
        labels, covariates, exposure = (
            None if values is None else values[rows] for values in (self.labels, self.covariates, self.exposure)
        )
        x = self.x.take(rows) if isinstance(self.x, RowsOnDisk) else self.x[rows]
        numbers = self.row_numbers[rows]
        return replace(self, x=x, labels=labels, covariates=covariates, exposure=exposure, rows=numbers)

    def in_memory(self) -> Self:
        """The same data with ``x`` as an array in memory."""
        return replace(self, x=self.x[:]) if isinstance(self.x, RowsOnDisk) else self

    def in_user_units(self, values: np.ndarray) -> np.ndarray:
        """``values`` (..., D) of the model, such as reconstructions, in the units that the data had before scaling.

        Binarised data have no units: their values, and the probabilities of a model of them, stay as they are.
        """
        return values if self.binarization != "none" else self.transform.undo(values)

    def fingerprint(self) -> str:
        """SHA-256 over shape, dtype and values, as hexadecimal digits."""
        digest = hashlib.sha256(f"{self.x.shape} {self.x.dtype.str}".encode())
        for start in range(0, self.num_data, _CHUNK):
            digest.update(np.ascontiguousarray(self.x[start : start + _CHUNK]).tobytes())
        return digest.hexdigest()


def as_matrix(values: np.ndarray, name: str) -> tuple[np.ndarray, tuple[int, int] | None]:
    """``values`` as (N, D) numbers, and the shape (H, W) of images (N, H, W), which are flattened.

    The numbers are floats, but integers that float32 cannot hold stay integers until they are scaled.
    """
    image_shape = check_shape(values, name)
    x = values.reshape(len(values), -1)
    dtype = precise_dtype(x.dtype)
    if x.dtype.isnative and (x.dtype == dtype or (x.dtype.kind in "iu" and dtype == np.float64)):
        return x, image_shape
    return x.astype(dtype), image_shape


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


def check_values(x: np.ndarray | RowsOnDisk, name: str, missing: str = "refuse", *, learnable: bool = True) -> None:
    """Raise unless all values are finite (NaN may be there with ``missing="mask"``).

    Where there is something to learn from the data (``learnable``), also unless they vary and every column has a value.
    """
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
    if not learnable:
        return
    if not observed.all():
        raise DataError(f"{name}: column {np.flatnonzero(~observed)[0]} has no observed value. Drop it.")
    if not varied:
        raise DataError(f"{name}: all rows are the same, so there is nothing to learn. Check how the file was written.")


def check_labels(labels: np.ndarray | None, name: str, missing: str = "refuse") -> None:
    """Raise unless every datum has one of the ``labels`` (N,), where there are any and ``missing`` is ``"refuse"``."""
    if labels is None or missing != "refuse" or not np.ma.is_masked(labels):
        return
    absent = np.flatnonzero(np.ma.getmaskarray(labels))
    raise DataError(
        f"{name}: {len(absent)} of {len(labels)} rows have no label (first: row {absent[0]}). Drop these rows, name "
        "the labels that are not known, or fit with missing='mask'."
    )
