"""The user's own files, which are read as numbers, never as code, after a check of their sizes."""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from probvae.data.arrow_tables import (
    check_width,
    checked_labels,
    read_table,
    without_index,
    without_row_numbers,
)
from probvae.data.dataset import Dataset, as_matrix, check_shape
from probvae.data.on_disk import IN_MEMORY_LIMIT, RowsOnDisk, fits_in_memory, float_dtype
from probvae.data.raw_data import RawData
from probvae.data.transforms import rounding_of
from probvae.errors import ConfigError, DataError
from probvae.storage.untrusted import check_file


def read_file(path: Path, labels: str | None = None, missing: str = "refuse", limit: int = IN_MEMORY_LIMIT) -> RawData:
    """The data in the file ``path``, by its ending. Raises :class:`~probvae.errors.DataError` with the reason.

    A missing label is masked. More than ``limit`` bytes of floats stay on the disk (``.npy``) or are refused (where
    they have to be unpacked).
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


def _read_npy(path: Path, labels: str | None, limit: int) -> RawData:
    _refuse_labels(path, labels)
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.size and not fits_in_memory(values.shape, float_dtype(values.dtype).itemsize, limit):
        return _as_raw(Dataset(RowsOnDisk(values), path.name, image_shape=check_shape(values, str(path))), values)
    x, image_shape = as_matrix(values, str(path))
    return _as_raw(Dataset(x, path.name, image_shape=image_shape), values)


def _as_raw(data: Dataset, values: np.ndarray) -> RawData:
    return RawData.of(data, float_dtype(values.dtype), rounding_of(values.dtype))


def _read_npz(path: Path, labels: str | None, limit: int) -> RawData:
    _refuse_labels(path, labels)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
            wanted = _data_name(path, names)
            for member, name in zip(archive.infolist(), names, strict=True):
                if name in (wanted, "labels"):
                    _check_member(path, archive, member, limit)
        with np.load(path, allow_pickle=False) as arrays:
            values = arrays[wanted]
            x, image_shape = as_matrix(values, str(path))
            target = arrays["labels"] if "labels" in names and wanted != "labels" else None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: the archive is damaged ({_first_line(error)}). Write the file again.") from error
    checked = None if target is None else checked_labels(str(path), target, len(x))
    return _as_raw(Dataset(x, path.name, checked, image_shape), values)


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


def _read_csv(path: Path, labels: str | None, limit: int) -> RawData:
    from pyarrow import ArrowException, csv

    with path.open("rb") as file:
        check_width(str(path), file.readline(_LONGEST_LINE).count(b",") + 1)
    check_file(path, "Save the numbers as .npy.", limit, error=DataError)
    try:
        table = csv.read_csv(path)
        if _is_datum(table):  # there is no header, and its numbers were read as names
            table = csv.read_csv(path, read_options=csv.ReadOptions(autogenerate_column_names=True))
    except ArrowException as error:
        raise DataError(f"{path}: not a table of comma-separated values ({_first_line(error)}).") from error
    return read_table(str(path), path.name, without_row_numbers(table, path.name), labels, text=True)


def _is_datum(table: Any) -> bool:
    """True where the first row of a file is a datum, and no header: all of it are numbers, and they do not count.

    A data frame of an array has the header 0,1,2,... Numbers from 1 on are a header where no column holds integers.
    """
    names = list(table.column_names)
    if not all(_is_number(name) for name in names):
        return False
    whole = [str(kind).startswith(("int", "uint")) for kind in table.schema.types]
    if names == list(map(str, range(len(names)))):
        return len(names) == 1 and all(whole)
    return names != list(map(str, range(1, len(names) + 1))) or len(names) == 1 or any(whole)


def _read_parquet(path: Path, labels: str | None, limit: int) -> RawData:
    from pyarrow import ArrowException, parquet

    try:
        metadata = parquet.ParquetFile(path).metadata
        check_width(str(path), metadata.num_columns)
        if metadata.num_rows * metadata.num_columns * 4 > limit:
            raise DataError(f"{path}: {metadata.num_rows} rows do not fit into memory. Save the numbers as .npy.")
        table = parquet.read_table(path)
    except ArrowException as error:
        raise DataError(f"{path}: not a whole parquet file ({_first_line(error)}). Write it again.") from error
    return read_table(str(path), path.name, without_index(table, labels), labels)


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
# Bytes of a table's first line, whose columns are counted
_LONGEST_LINE = 2**24
# Bytes up to which an array in an .npz is believed; a larger one is read unless it was packed by more than _RATIO
_BELIEVED, _RATIO = 256 * 2**20, 200
READERS: dict[str, Callable[[Path, str | None, int], RawData]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
