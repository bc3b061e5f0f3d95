"""Binarisation of values in [0, 1], which is always explicit and always written down."""

from dataclasses import replace
from typing import NoReturn

import numpy as np

from probvae.data.dataset import Dataset
from probvae.data.on_disk import RowsOnDisk, blocks
from probvae.data.transforms import value_range
from probvae.errors import ConfigError, SupportError, unknown_name

BINARIZATIONS = {
    "none": "the values as they are",
    "fixed": "x ~ Bernoulli(x), drawn once",
    "threshold": "1 where x > 0.5, else 0",
    "fresh": "x ~ Bernoulli(x), drawn anew at every use",
}


def binarize(data: Dataset, binarization: str, seed: int) -> Dataset:
    """``data`` with values 0 and 1 (``fresh``: the values stay, are checked, and are marked)."""
    if binarization not in BINARIZATIONS:
        raise unknown_name("binarization", binarization, BINARIZATIONS)
    if binarization == "none":
        return data
    low, high = value_range(data.x)
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
