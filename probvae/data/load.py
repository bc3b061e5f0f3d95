"""The door of the room: a name or a file becomes a checked, scaled, binarised data set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from probvae.data import builtin, vision
from probvae.data import user_files as files
from probvae.data.dataset import Dataset, check_labels, check_values
from probvae.data.frames import is_frame, read_frame
from probvae.data.on_disk import IN_MEMORY_LIMIT
from probvae.data.raw_data import RawData
from probvae.data.transforms import Transform
from probvae.errors import ConfigError, DataError, unknown_name
from probvae.foundation.checks import check_positive


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
    source: Any,
    *,
    scaling: str | None = None,
    transform: Transform | None = None,
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
        ``labels``), ``.csv`` or ``.parquet`` file, or a DataFrame (pandas, polars, or any other that gives Arrow).
    scaling
        One of :data:`SCALINGS`; by default the scaling of the named set, and none for a file. Its statistics are those
        of all rows that are loaded here. A recipe (``probvae fit``) takes those of its training rows.
    transform
        The scaling of other data, ``train.transform``, in the place of ``scaling``: new rows become the numbers that
        they would have been among the old ones.
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
        ``"mask"`` lets NaN (an empty cell of a table) stand for a missing entry, and an empty label for a missing one,
        which is masked in ``labels``; ``"refuse"`` is an error.
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
    if transform is not None and scaling is not None:
        raise ConfigError("scaling: the transform has one already. Leave out scaling, or transform.")
    raw = read_raw(
        source,
        data_dir=data_dir,
        split=split,
        num_data=num_data,
        labels=labels,
        covariates=covariates,
        exposure=exposure,
        missing=missing,
        options=options,
        seed=seed,
        in_memory_limit=in_memory_limit,
        download=download,
    )
    return raw.prepared(raw.fit_transform(scaling) if transform is None else transform, binarization, seed)


def read_raw(
    source: Any,
    *,
    covariates: Sequence[str] | None = None,
    exposure: str | None = None,
    num_data: int | None = None,
    missing: str = "refuse",
    in_memory_limit: float | None = None,
    seed: int = 0,
    **options: Any,
) -> RawData:
    """The data of :func:`load_data`, which explains the arguments, checked and not yet scaled."""
    spec = DATASETS.get(str(source)) if isinstance(source, str | Path) else None
    limit = IN_MEMORY_LIMIT if in_memory_limit is None else int(_checked_limit(in_memory_limit) * 2**20)
    if spec is not None:
        data = spec.read(seed=seed, **_accepted(str(source), options, spec.takes))
        dtype, rounding = np.dtype(np.float32), None if spec.pixel_maximum else np.finfo(np.float64).eps
        raw = replace(RawData.of(data, dtype, rounding), scaling=spec.scaling, pixel_maximum=spec.pixel_maximum)
    elif is_frame(source):
        raw = read_frame(source, **_accepted("a DataFrame", options, ("labels",)))
    else:
        path = _existing(source)
        raw = files.read_file(path, **_accepted(str(source), options, ("labels",)), limit=limit)
    if covariates:
        raw = raw.with_covariates(covariates)
    if exposure is not None:
        raw = raw.with_exposure(exposure)
    check_values(raw.data.x, raw.data.name, missing)
    check_labels(raw.data.labels, raw.data.name, missing)
    return raw if num_data is None else raw.first(num_data)


def _checked_limit(limit: float) -> float:
    check_positive(limit, "in_memory_limit")
    return limit


def _accepted(source: str, arguments: Mapping[str, Any], takes: tuple[str, ...]) -> dict[str, Any]:
    for name, value in arguments.items():
        if value is not None and name not in takes:
            raise ConfigError(f"{name}: {source!r} does not take it (got {value!r}). Leave it out.")
    return {name: arguments.get(name) for name in takes}


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
