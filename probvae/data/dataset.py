"""A data set: a matrix (N, D), and what is known about it."""

import hashlib
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from probvae.data.on_disk import RowsOnDisk

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
    ``binarization="fresh"``: the values are probabilities in [0, 1], to be drawn anew at every use.
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

    @property
    def num_data(self) -> int:
        """N."""
        return int(self.x.shape[0])

    @property
    def data_dim(self) -> int:
        """D."""
        return int(self.x.shape[1])

    def take(self, rows: np.ndarray | slice) -> Self:
        """The data of the rows that ``rows`` selects, by number or by slice."""
        labels, covariates, exposure = (
            None if values is None else values[rows] for values in (self.labels, self.covariates, self.exposure)
        )
        x = self.x.take(rows) if isinstance(self.x, RowsOnDisk) else self.x[rows]
        return replace(self, x=x, labels=labels, covariates=covariates, exposure=exposure)

    def in_memory(self) -> Self:
        """The same data with ``x`` as an array in memory."""
        return replace(self, x=self.x[:]) if isinstance(self.x, RowsOnDisk) else self

    def fingerprint(self) -> str:
        """SHA-256 over shape, dtype and values, as hexadecimal digits."""
        digest = hashlib.sha256(f"{self.x.shape} {self.x.dtype.str}".encode())
        for start in range(0, self.num_data, _CHUNK):
            digest.update(np.ascontiguousarray(self.x[start : start + _CHUNK]).tobytes())
        return digest.hexdigest()
