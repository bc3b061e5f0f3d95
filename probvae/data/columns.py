"""Columns of a table that are given rather than modelled."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from probvae.data.dataset import Dataset
from probvae.data.on_disk import RowsOnDisk, blocks
from probvae.errors import ConfigError, DataError, unknown_name

TOTAL = "total"


def take_covariates(data: Dataset, names: Sequence[str]) -> Dataset:
    """The columns ``names`` moved from ``data.x`` to ``data.covariates``."""
    rest, columns = _without(data, names, "condition")
    return replace(rest, covariates=columns)


def take_exposure(data: Dataset, name: str) -> Dataset:
    """The exposure of counts: the column ``name``, which leaves the data, or for ``"total"`` the sum of each row."""
    if name == TOTAL:
        return replace(data, exposure=np.concatenate([np.nansum(rows, axis=1) for _, rows in blocks(data.x)]))
    rest, columns = _without(data, [name], "exposure")
    return replace(rest, exposure=columns[:, 0])


def _without(data: Dataset, names: Sequence[str], argument: str) -> tuple[Dataset, np.ndarray]:
    if data.feature_names is None or isinstance(data.x, RowsOnDisk):
        raise ConfigError(f"{argument}: {data.name} has no named columns. Give a table (.csv or .parquet).")
    for name in names:
        if name not in data.feature_names:
            raise unknown_name(f"column of {data.name} for {argument}", name, data.feature_names)
    taken = [data.feature_names.index(name) for name in names]
    kept = [column for column in range(data.data_dim) if column not in taken]
    if not kept:
        raise DataError(f"{argument}: no column of {data.name} is left to be modelled. Name fewer.")
    features = tuple(data.feature_names[column] for column in kept)
    return replace(data, x=np.ascontiguousarray(data.x[:, kept]), feature_names=features), data.x[:, taken]
