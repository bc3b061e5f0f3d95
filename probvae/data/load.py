"""The door of the room: a name or a file becomes a checked, scaled, binarised data set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from probvae.data import builtin, vision
from probvae.data import user_files as files
from probvae.data.dataset import Dataset, check_values
from probvae.data.on_disk import IN_MEMORY_LIMIT, RowsOnDisk, blocks
from probvae.data.transforms import binarize, scale
from probvae.errors import ArgumentError, ConfigError, DataError, UnknownNameError, unknown_name
from probvae.foundation.checks import check_positive

# An exposure with this name is the sum of each row
TOTAL = "total"


@dataclass(frozen=True)
class DatasetSpec:
    """A named set: its summary, its scaling by default, and the function that reads it.

    ``pixel_maximum`` is the largest value that a pixel can have; ``read`` takes the keywords in ``takes``.
    """

    summary: str
    scaling: str
    read: Callable[..., Dataset]
    pixel_maximum: float | None = None
    takes: tuple[str, ...] = ()


DATASETS: dict[str, DatasetSpec] = {
    "digits": DatasetSpec("1797 handwritten digits, 8x8 grey pixels (scikit-learn)", "unit", builtin.digits, 16.0),
    "iris": DatasetSpec("150 iris flowers, 4 lengths in cm (scikit-learn)", "standardize", builtin.iris),
    "wine": DatasetSpec("178 wines, 13 measurements (scikit-learn)", "standardize", builtin.wine),
    "breast-cancer": DatasetSpec("569 tumours, 30 measurements (scikit-learn)", "standardize", builtin.breast_cancer),
    "linear-gaussian": DatasetSpec(
        "x = W z + b + sqrt(c) eps with known truth (options num_data, data_dim, latent_dim, variance, seed)",
        "none",
        builtin.linear_gaussian,
        takes=("options",),
    ),
    "mnist": DatasetSpec("70000 handwritten digits, 28x28 (torchvision)", "unit", vision.mnist, 255.0, vision.TAKES),
    "fashion-mnist": DatasetSpec(
        "70000 pieces of clothing, 28x28 (torchvision)", "unit", vision.fashion_mnist, 255.0, vision.TAKES
    ),
    "kmnist": DatasetSpec(
        "70000 cursive Japanese characters, 28x28 (torchvision)", "unit", vision.kmnist, 255.0, vision.TAKES
    ),
}


def load_data(
    source: str | Path,
    *,
    scaling: str | None = None,
    binarization: str = "none",
    data_dir: str | Path | None = None,
    split: str | None = None,
    num_data: int | None = None,
    labels: str | None = None,
    covariates: Sequence[str] | None = None,
    exposure: str | None = None,
    missing: str = "refuse",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    in_memory_limit: float | None = None,
    download: bool | None = None,
) -> Dataset:
    """A named data set, or the file at a path, ready for a fit.

    Parameters
    ----------
    source
        One of :data:`DATASETS`, or a ``.npy`` (memory-mapped), ``.npz`` (array ``x``, or its only one; optional
        ``labels``), ``.csv`` or ``.parquet`` file.
    scaling
        One of :data:`SCALINGS`; by default the scaling of the named set, and none for a file.
    binarization
        One of :data:`BINARIZATIONS`.
    data_dir
        The folder of torchvision's data sets, which are downloaded if they are not in it. By default the environment
        variable ``PROBVAE_DATA``, or a cache folder in the home directory.
    split
        ``"train"`` (default) or ``"test"``, for torchvision's sets.
    num_data
        Take the first so many rows.
    labels
        The column of a table that holds the labels.
    covariates
        Names of columns to condition on, not to model: y of p(x|z, y). They leave x.
    exposure
        For counts: the name of a column, which leaves x, or ``"total"``, the sum of each row.
    missing
        ``"mask"`` lets NaN (an empty cell of a table) stand for a missing entry; ``"refuse"`` is an error.
    options
        The options of ``linear-gaussian``.
    seed
        The seed of the fixed binarisation, and of ``linear-gaussian`` unless its options have one.
    in_memory_limit
        MB (2^20 bytes), 2048 by default. A ``.npy`` file whose numbers take more as floats stays on the disk: its
        rows are read, scaled and binarised a few at a time, each time they are used (:class:`RowsOnDisk`). Other files
        are refused then.
    download
        False refuses to download a set of torchvision's that is not in ``data_dir``.

    Raises :class:`~probvae.errors.DataError` for data that cannot be used and
    :class:`~probvae.errors.ConfigError` for an argument that the source does not take; ``seed`` is isolated.

    >>> load_data("digits").x.shape
    (1797, 64)
    """
    spec = DATASETS.get(str(source))
    arguments = {"data_dir": data_dir, "split": split, "options": options, "labels": labels, "download": download}
    if spec is not None:
        data = spec.read(seed=seed, **_accepted(str(source), arguments, spec.takes))
    else:
        limit = IN_MEMORY_LIMIT if in_memory_limit is None else int(_checked_limit(in_memory_limit) * 2**20)
        data = files.read_file(_existing(source), **_accepted(str(source), arguments, ("labels",)), limit=limit)
    if covariates:
        data = _take_covariates(data, covariates)
    if exposure is not None:
        data = _take_exposure(data, exposure)
    check_values(data.x, data.name, missing)
    if num_data is not None:
        data = _first(data, num_data)
    data = scale(data, scaling or (spec.scaling if spec else "none"), spec.pixel_maximum if spec else None)
    return binarize(data, binarization, seed)


def _checked_limit(limit: float) -> float:
    check_positive(limit, "in_memory_limit")
    return limit


def _accepted(source: str, arguments: Mapping[str, Any], takes: tuple[str, ...]) -> dict[str, Any]:
    for name, value in arguments.items():
        if value is not None and name not in takes:
            raise ConfigError(f"{name}: {source!r} does not take it (got {value!r}). Leave it out.")
    return {name: arguments[name] for name in takes}


def _existing(source: str | Path) -> Path:
    path = Path(source)
    try:
        path.stat()
        return path
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # the name is too long or holds a NUL, or links go in circles
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}). Check the path.") from error
    if path.suffix.lower() in files.READERS or len(path.parts) > 1:
        raise DataError(f"{path}: there is no such file. Check the path, or take a named set (`probvae list data`).")
    raise unknown_name("data set", str(source), DATASETS)


def _first(data: Dataset, num_data: int) -> Dataset:
    if isinstance(num_data, bool) or not 1 <= num_data <= data.num_data:
        raise ArgumentError(f"num_data: expected 1 to {data.num_data} (the rows of {data.name}), got {num_data}.")
    return data.take(slice(num_data))


def _take_covariates(data: Dataset, names: Sequence[str]) -> Dataset:
    """The columns ``names`` moved from ``data.x`` to ``data.covariates``."""
    rest, columns = _without(data, names, "covariates")
    return replace(rest, covariates=columns)


def _take_exposure(data: Dataset, name: str) -> Dataset:
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
            raise UnknownNameError(f"{argument}: {unknown_name(f'column of {data.name}', name, data.feature_names)}")
    taken = [data.feature_names.index(name) for name in names]
    kept = [column for column in range(data.data_dim) if column not in taken]
    if not kept:
        raise DataError(f"{argument}: no column of {data.name} is left to be modelled. Name fewer.")
    features = tuple(data.feature_names[column] for column in kept)
    return replace(data, x=np.ascontiguousarray(data.x[:, kept]), feature_names=features), data.x[:, taken]
