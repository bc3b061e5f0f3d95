"""The scaling of runs of formats 0 and 1, which took the statistics of all their rows, in the arithmetic of their time.

Such a run stores no transform. It is fitted again to the run's own data, and gives the numbers of the day bit for bit.
"""

from dataclasses import replace
from typing import Self

import numpy as np

from probvae.data.on_disk import RowsOnDisk, blocks
from probvae.data.raw_data import RawData
from probvae.data.transforms import Transform, value_range


class OlderTransform(Transform):
    """The scaling of an older run: numbers were cast to their last dtype before they were scaled."""

    @classmethod
    def of(cls, raw: RawData, scaling: str | None) -> Self:
        """The scaling with this name, or the default of the set, with the statistics of all rows of ``raw``."""
        x, scaling = squeezed(raw).data.x, scaling or raw.scaling
        if scaling == "standardize":
            return cls(scaling, *_older_statistics(x))
        if scaling == "unit" and raw.pixel_maximum is None:
            low, high = value_range(x)
            return cls(scaling, np.full(1, low), np.full(1, high - low if high > low else 1.0))
        exact = Transform.fit(x, scaling, raw.pixel_maximum)
        return cls(exact.scaling, exact.shift, exact.divisor)

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """``rows`` (..., D) of the last dtype scaled: to [0, 1] in their own dtype, otherwise in float64."""
        if self.scaling != "unit":
            return super().apply(rows)
        low = rows.dtype.type(self.shift[0])
        high = rows.dtype.type(self.shift[0] + self.divisor[0])
        return np.asarray((rows - low) / (high - low))


def squeezed(raw: RawData) -> RawData:
    """The data cast to their last dtype, as older versions read them, covariates and exposure with them."""
    data, dtype = raw.data, raw.dtype
    x = data.x if isinstance(data.x, RowsOnDisk) else data.x.astype(dtype, copy=False)
    covariates, exposure = (
        None if values is None else values.astype(dtype) for values in (data.covariates, data.exposure)
    )
    return replace(raw, data=replace(data, x=x, covariates=covariates, exposure=exposure))


def _older_statistics(x: np.ndarray | RowsOnDisk) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the divisor (D,) of each column, in one pass that begins at the first row."""
    observed, squares, largest = (np.zeros(x.shape[1]) for _ in range(3))
    mean = np.nan_to_num(x[:1][0].astype(np.float64))
    for _, rows in blocks(x):
        centred = rows - mean
        there = len(rows) - np.isnan(rows).sum(0)
        np.nan_to_num(centred, copy=False)
        total, both = centred.sum(0), np.maximum(observed + there, 1)
        squares += np.einsum("nd,nd->d", centred, centred) - total**2 / both
        observed, mean = observed + there, mean + total / both
        largest = np.maximum(largest, np.nan_to_num(np.abs(rows)).max(axis=0))
    spread = np.sqrt(squares / observed)
    return mean, np.where(spread <= 1e-6 * largest, 1.0, spread)
