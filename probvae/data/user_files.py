"""The user's own files, which are read as numbers, never as code, after a check of their sizes."""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from probvae.data.dataset import Dataset, as_matrix, check_shape
from probvae.data.on_disk import IN_MEMORY_LIMIT, RowsOnDisk, fits_in_memory, float_dtype
from probvae.errors import ConfigError, DataError
from probvae.storage.untrusted import check_file


def read_file(path: Path, labels: str | None = None, limit: int = IN_MEMORY_LIMIT) -> Dataset:
    """The data set in the file ``path``, by its ending. Raises :class:`~probvae.errors.DataError` with the reason.

    More than ``limit`` bytes of floats stay on the disk (``.npy``) or are refused (where they have to be unpacked).
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"{path}: expected a file ending in {', '.join(READERS)}. Convert it, or give a named set.")
    _check_beginning(path, suffix)
    try:
        return READERS[suffix](path, labels, limit)
    except (ConfigError, DataError):
        raise
    except Exception as error:
        # Parsers meet damaged bytes with exceptions of all kinds (numpy's header goes through Python's tokenizer).
        raise DataError(f"{path}: cannot be read as {suffix} ({_first_line(error)}). Write the file again.") from error


def _check_beginning(path: Path, suffix: str) -> None:
    try:
        check_file(path, f"Save the data in a file ending in {suffix}.", error=DataError)
        with path.open("rb") as file:
            beginning = file.read(8)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.") from error
    if not beginning:
        raise DataError(f"{path}: the file is empty. Write it again.")
    for magic, ending in _MAGIC.items():
        if beginning.startswith(magic) and ending != suffix:
            raise DataError(f"{path}: its content is that of a {ending} file. Rename it to end in {ending}.")
    if suffix in _MAGIC.values() and not any(
        beginning.startswith(m) for m, ending in _MAGIC.items() if ending == suffix
    ):
        raise DataError(f"{path}: its content is not that of a {suffix} file. Give the file its right ending.")


def _read_npy(path: Path, labels: str | None, limit: int) -> Dataset:
    _refuse_labels(path, labels)
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.size and not fits_in_memory(values.shape, float_dtype(values.dtype).itemsize, limit):
        return Dataset(RowsOnDisk(values), path.name, image_shape=check_shape(values, str(path)))
    x, image_shape = as_matrix(values, str(path))
    return Dataset(x, path.name, image_shape=image_shape)


def _read_npz(path: Path, labels: str | None, limit: int) -> Dataset:
    _refuse_labels(path, labels)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
            wanted = _data_name(path, names)
            for member, name in zip(archive.infolist(), names, strict=True):
                if name in (wanted, "labels"):
                    _check_member(path, archive, member, limit)
        with np.load(path, allow_pickle=False) as arrays:
            x, image_shape = as_matrix(arrays[wanted], str(path))
            target = arrays["labels"] if "labels" in names and wanted != "labels" else None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: the archive is damaged ({_first_line(error)}). Write the file again.") from error
    return Dataset(x, path.name, _checked_labels(path, target, len(x)), image_shape)


def _check_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> None:
    """Raise unless the header of one array agrees with the size that the archive gives, and both are believable."""
    with archive.open(member) as stream:
        version = npy_format.read_magic(stream)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, _, dtype = read(stream)
    num = int(np.prod(shape, dtype=object))
    size = dtype.itemsize * num
    as_floats = max(size, float_dtype(dtype).itemsize * num)
    if as_floats > limit:
        raise DataError(
            f"{path}: {member.filename} would take {as_floats / 2**30:.1f} GiB. Save it as .npy, which is not unpacked."
        )
    if size > member.file_size:
        raise DataError(f"{path}: {member.filename} is shorter than its header says. Write the file again.")
    if size > _BELIEVED and size > _RATIO * member.compress_size:
        raise DataError(
            f"{path}: {member.filename} would take {size / 2**20:.0f} MB out of {member.compress_size} bytes, more "
            "than numbers can be packed. Save it as .npy, which is not unpacked."
        )


def _data_name(path: Path, names: list[str]) -> str:
    others = [name for name in names if name != "labels"]
    if "x" in names:
        return "x"
    if len(others) == 1:
        return others[0]
    raise DataError(
        f"{path}: expected an array named x, got {', '.join(names) or 'none'}. Save it with np.savez(file, x=...)."
    )


def _read_csv(path: Path, labels: str | None, limit: int) -> Dataset:
    from pyarrow import ArrowException, csv

    with path.open("rb") as file:
        _check_width(path, file.readline(_LONGEST_LINE).count(b",") + 1)
    check_file(path, "Save the numbers as .npy.", limit, error=DataError)
    try:
        table = csv.read_csv(path)
        if all(_is_number(name) for name in table.column_names):
            # There is no header: the first row is a datum, whose numbers were read as names
            table = csv.read_csv(path, read_options=csv.ReadOptions(autogenerate_column_names=True))
    except ArrowException as error:
        raise DataError(f"{path}: not a table of comma-separated values ({_first_line(error)}).") from error
    return _from_table(path, table, labels)


def _read_parquet(path: Path, labels: str | None, limit: int) -> Dataset:
    from pyarrow import ArrowException, parquet

    try:
        metadata = parquet.ParquetFile(path).metadata
        _check_width(path, metadata.num_columns)
        if metadata.num_rows * metadata.num_columns * 4 > limit:
            raise DataError(f"{path}: {metadata.num_rows} rows do not fit into memory. Save the numbers as .npy.")
        table = parquet.read_table(path)
    except ArrowException as error:
        raise DataError(f"{path}: not a whole parquet file ({_first_line(error)}). Write it again.") from error
    return _from_table(path, table, labels)


def _check_width(path: Path, num_columns: int) -> None:
    """Raise for more columns than a table can have: each costs a thousand times what its first number does."""
    if num_columns > _MOST_COLUMNS:
        raise DataError(
            f"{path}: expected at most {_MOST_COLUMNS} columns in a table, got {num_columns}. Save the numbers as .npy."
        )


def _from_table(path: Path, table: Any, labels: str | None) -> Dataset:
    names = list(table.column_names)
    if labels is not None and labels not in names:
        raise ConfigError(f"labels: {path} has no column {labels!r}. It has {', '.join(map(str, names))}.")
    features = [name for name in names if name != labels]
    if table.num_rows == 0 or not features:
        raise DataError(f"{path}: expected rows and columns of numbers, got {table.num_rows} rows. Check the file.")
    columns = [_numbers(path, table.column(place), name) for place, name in enumerate(names) if name != labels]
    target = None if labels is None else np.asarray(table.column(labels).to_pylist())
    # Text has no dtype: its numbers become float32, as most numbers do
    wide = path.suffix.lower() != ".csv" and any(
        kind == "double" for kind, name in zip(table.schema.types, names, strict=True) if name != labels
    )
    with np.errstate(over="ignore"):  # check_values() finds numbers beyond float32, as infinite ones
        x = np.stack(columns, axis=1).astype(np.float64 if wide else np.float32)
    return Dataset(
        x,
        path.name,
        _checked_labels(path, target, table.num_rows),
        feature_names=tuple(map(str, features)),
    )


def _numbers(path: Path, column: Any, name: str) -> np.ndarray:
    import pyarrow

    kind = column.type
    if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)):
        raise DataError(
            f"{path}: expected numbers in column {name!r}, got {kind}. "
            f"Drop the column, or name it with labels={name!r}."
        )
    values = column.cast(pyarrow.float64()) if pyarrow.types.is_boolean(kind) else column
    return np.asarray(values.to_numpy(), dtype=np.float64)  # an empty cell becomes NaN, and is found as that


def _checked_labels(path: Path, labels: np.ndarray | None, num_data: int) -> np.ndarray | None:
    if labels is None:
        return None
    if labels.shape != (num_data,):
        raise DataError(f"{path}: expected labels of shape ({num_data},), got {labels.shape}. One datum has one label.")
    return labels if labels.dtype.kind in "biu" else labels.astype(str)


def _refuse_labels(path: Path, labels: str | None) -> None:
    if labels is not None:
        raise ConfigError(f"labels: {path} has no named columns. Leave it out, or save a .csv or .parquet.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0] or type(error).__name__


_MAGIC = {b"\x93NUMPY": ".npy", b"PK\x03\x04": ".npz", b"PAR1": ".parquet"}
# A table is a list of columns, which takes time and memory for each
_MOST_COLUMNS, _LONGEST_LINE = 20_000, 2**24
# Bytes up to which an array in an .npz is believed; a larger one is read unless it was packed by more than _RATIO
_BELIEVED, _RATIO = 256 * 2**20, 200
READERS: dict[str, Callable[[Path, str | None, int], Dataset]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
