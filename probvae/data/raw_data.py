"""Data as they were read, before scaling: in the precision of their source, with what scaling has to know."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from probvae.data.binarization import binarize
from probvae.data.dataset import Dataset, check_values
from probvae.data.on_disk import RowsOnDisk, precise_dtype
from probvae.data.transforms import Transform, magnitudes, rounding_of, value_range
from probvae.errors import ArgumentError, ConfigError, DataError, DataWarning, UnknownNameError, unknown_name

# An exposure with this name is the sum of each row
TOTAL = "total"
# Rows in a part of the fingerprint, so that a memory-mapped file needs little memory
_CHUNK = 4096
# float32 loses a column's digits where it moves a value by more than this share of the standard deviation
_LOST = 0.05


@dataclass(frozen=True)
class RawData:
    """Data in the units of the user: ``data.x`` (N, D) in the precision of the source.

    ``dtype`` is the dtype of the values after scaling. ``rounding`` is the source's relative precision, for all columns
    or for each (D,): see :meth:`Transform.fit`. ``scaling`` is the scaling by default, ``pixel_maximum`` the largest
    value that a pixel can have.
    """

    data: Dataset
    dtype: np.dtype
    rounding: np.ndarray | float
    scaling: str = "none"
    pixel_maximum: float | None = None

    @classmethod
    def of(cls, data: Dataset, dtype: np.dtype, rounding: np.ndarray | float | None = None) -> Self:
        """``data`` from one array, whose values become ``dtype``."""
        x = data.x.values if isinstance(data.x, RowsOnDisk) else data.x
        return cls(data, dtype, rounding_of(x.dtype) if rounding is None else rounding)

    def take(self, rows: np.ndarray | slice) -> Self:
        """The data of the rows that ``rows`` selects."""
        return replace(self, data=self.data.take(rows))

    def first(self, num_data: int) -> Self:
        """The first ``num_data`` rows."""
        if isinstance(num_data, bool) or not 1 <= num_data <= self.data.num_data:
            raise ArgumentError(
                f"num_data: expected 1 to {self.data.num_data} (the rows of {self.data.name}), got {num_data}."
            )
        return self.take(slice(num_data))

    def with_covariates(self, names: Sequence[str]) -> Self:
        """The columns ``names`` moved from ``x`` to ``covariates``."""
        rest, columns = self._without(names, "covariates")
        return replace(rest, data=replace(rest.data, covariates=columns))

    def with_exposure(self, name: str) -> Self:
        """The exposure of counts: the column ``name``, which leaves the data, or for ``"total"`` each row's sum."""
        if name == TOTAL:
            x, step = self.data.x, max(1, 2**20 // self.data.data_dim)
            sums = [np.nansum(x[start : start + step], axis=1) for start in range(0, len(x), step)]
            return replace(self, data=replace(self.data, exposure=np.concatenate(sums)))
        rest, columns = self._without([name], "exposure")
        return replace(rest, data=replace(rest.data, exposure=columns[:, 0]))

    def _without(self, names: Sequence[str], argument: str) -> tuple[Self, np.ndarray]:
        data = self.data
        if data.feature_names is None or isinstance(data.x, RowsOnDisk):
            raise ConfigError(f"{argument}: {data.name} has no named columns. Give a table (.csv or .parquet).")
        for name in names:
            if name not in data.feature_names:
                problem = unknown_name(f"column of {data.name}", name, data.feature_names)
                raise UnknownNameError(f"{argument}: {problem}")
        taken = [data.feature_names.index(name) for name in names]
        kept = [column for column in range(data.data_dim) if column not in taken]
        if not kept:
            raise DataError(f"{argument}: no column of {data.name} is left to be modelled. Name fewer.")
        features = tuple(data.feature_names[column] for column in kept)
        rest = replace(data, x=np.ascontiguousarray(data.x[:, kept]), feature_names=features)
        rounding = self.rounding[kept] if isinstance(self.rounding, np.ndarray) else self.rounding
        return replace(self, data=rest, rounding=rounding), data.x[:, taken]

    def fit_transform(self, scaling: str | None = None) -> Transform:
        """The scaling (by default that of the source) with the statistics of these rows."""
        return Transform.fit(self.data.x, scaling or self.scaling, self.pixel_maximum, self.rounding)

    def prepared(
        self, transform: Transform, binarization: str = "none", seed: int = 0, bounds: tuple[float, float] | None = None
    ) -> Dataset:
        """The rows scaled by ``transform`` and binarised, ready for a fit.

        Where values have to lie in [0, 1] (``bounds``, or because they are binarised), rows that the transform was not
        fitted on may have values beyond it. They count as the nearest end, and a
        :class:`~probvae.errors.DataWarning` says how many. Another such warning says where float32 loses the digits of
        values that are not scaled.
        """
        x = transform.rows(self.data.x, self.dtype)
        if transform.is_identity:
            self._check_digits(x)
        else:
            check_values(x, self.data.name, "mask", learnable=False)
        if transform.scaling == "unit" and (binarization != "none" or bounds == (0.0, 1.0)):
            x = _clipped(x, self.data.name)
        data = replace(self.data, x=x, scaling=transform.scaling, transform=transform)
        return binarize(data, binarization, seed)

    def _check_digits(self, x: np.ndarray | RowsOnDisk) -> None:
        """Refuse values beyond float32; warn where it cannot tell the values of a column apart."""
        source = self.data.x
        wide = precise_dtype(source.values.dtype if isinstance(source, RowsOnDisk) else source.dtype)
        if wide == self.dtype:
            return
        check_values(x, self.data.name, "mask")
        if isinstance(source, RowsOnDisk) or isinstance(x, RowsOnDisk):
            return
        largest, spread = magnitudes(source)
        unsafe = (spread > 0) & (np.finfo(self.dtype).eps * largest > _LOST * spread)
        for column in np.flatnonzero(unsafe):
            lost = float(np.nanmax(np.abs(source[:, column] - x[:, column].astype(np.float64))))
            if lost > _LOST * spread[column]:
                name = column if self.data.feature_names is None else repr(self.data.feature_names[column])
                warnings.warn(
                    f"{self.data.name}: column {name} varies by {spread[column]:.3g} around {largest[column]:.3g}, and "
                    f"{self.dtype} moves its values by up to {lost:.2g}. Use scaling='standardize'.",
                    DataWarning,
                    stacklevel=5,
                )

    def fingerprint(self) -> str:
        """SHA-256 over all that was read: values in the source's precision, labels, covariates and exposure."""
        data = self.data
        x = data.x.precise() if isinstance(data.x, RowsOnDisk) else data.x
        dtype = precise_dtype(x.dtype)
        digest = hashlib.sha256(f"{x.shape} {dtype.str}".encode())
        for start in range(0, data.num_data, _CHUNK):
            digest.update(np.ascontiguousarray(x[start : start + _CHUNK], dtype=dtype).tobytes())
        for values in (data.labels, data.covariates, data.exposure):
            digest.update(repr(None if values is None else values.tolist()).encode())
        return digest.hexdigest()


def _clipped(x: np.ndarray | RowsOnDisk, name: str) -> np.ndarray | RowsOnDisk:
    low, high = value_range(x)
    if low >= 0 and high <= 1:
        return x
    step = max(1, 2**20 // x.shape[1])
    parts = [x[start : start + step] for start in range(0, len(x), step)] if isinstance(x, np.ndarray) else []
    beyond = sum(int(((part < 0) | (part > 1)).any(1).sum()) for part in parts)
    told = f"{beyond} of {len(x)} rows" if parts else "some rows"
    warnings.warn(
        f"{name}: {told} have values beyond those of the training rows, from {low:.3g} to {high:.3g} where these have "
        "0 to 1. They count as 0 and 1.",
        DataWarning,
        stacklevel=6,
    )
    return x.then(_within_unit) if isinstance(x, RowsOnDisk) else _within_unit(x)


def _within_unit(x: np.ndarray) -> np.ndarray:
    return x.clip(0.0, 1.0)
