"""Arrow tables as data: their columns become a matrix, their labels stay beside it."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from probvae.data.dataset import Dataset
from probvae.data.raw_data import RawData
from probvae.data.transforms import rounding_of
from probvae.errors import ConfigError, DataError, DataWarning

if TYPE_CHECKING:
    import pyarrow

# A table is a list of columns, which takes time and memory for each
MOST_COLUMNS = 20_000


def check_width(place: str, num_columns: int) -> None:
    """Raise for more columns than a table can have: each costs a thousand times what its first number does."""
    if num_columns > MOST_COLUMNS:
        raise DataError(
            f"{place}: expected at most {MOST_COLUMNS} columns in a table, got {num_columns}. Save the numbers as .npy."
        )


def read_table(place: str, name: str, table: "pyarrow.Table", labels: str | None, text: bool = False) -> RawData:
    """The data in an Arrow ``table`` that stood at ``place``; the column ``labels`` holds the labels.

    Numbers in a ``text`` file have no dtype. They are read in float64, and become float32 in the end, as most do.
    Raises :class:`~probvae.errors.DataError` for a column without numbers, and what :func:`checked_labels` raises.
    """
    names = list(table.column_names)
    if labels is not None and labels not in names:
        raise ConfigError(f"labels: {place} has no column {labels!r}. It has {', '.join(map(str, names))}.")
    features = [number for number, column in enumerate(names) if column != labels]
    if table.num_rows == 0 or not features:
        raise DataError(f"{place}: expected rows and columns of numbers, got {table.num_rows} rows. Check the file.")
    columns = [_numbers(place, table.column(number), names[number]) for number in features]
    target = None
    if labels is not None:
        target = checked_labels(place, label_array(table.column(labels).to_pylist()), table.num_rows)
    types = table.schema.types  # a list that Arrow makes anew each time
    dtypes = [_dtype(types[number]) for number in features]
    wide = not text and np.dtype(np.float64) in dtypes
    rounding = np.finfo(np.float64).eps if text else np.array([rounding_of(dtype) for dtype in dtypes])
    feature_names = tuple(str(names[number]) for number in features)
    data = Dataset(np.stack(columns, axis=1), name, target, feature_names=feature_names)
    return RawData.of(data, np.dtype(np.float64 if wide else np.float32), rounding)


def without_row_numbers(table: "pyarrow.Table", name: str) -> "pyarrow.Table":
    """The ``table`` of a text file without a first column that has no name and counts the rows, as pandas writes it.

    A :class:`~probvae.errors.DataWarning` says so.
    """
    import pyarrow

    if table.num_columns < 2 or table.column_names[0].strip() or not pyarrow.types.is_integer(table.schema.types[0]):
        return table
    first = table.column(0).to_numpy()
    if not np.array_equal(first - first[:1], np.arange(len(first))):
        return table
    warnings.warn(
        f"{name}: the first column has no name and counts the rows, and is left out. Give it a name to keep it.",
        DataWarning,
        stacklevel=6,
    )
    return table.remove_column(0)


def without_index(table: "pyarrow.Table", labels: str | None) -> "pyarrow.Table":
    """The ``table`` of a parquet file without the columns that its writer, pandas, has marked as its index."""
    marked = (table.schema.pandas_metadata or {}).get("index_columns", [])
    index = [name for name in marked if isinstance(name, str) and name in table.column_names and name != labels]
    return table.drop_columns(index) if 0 < len(index) < table.num_columns else table


def label_array(values: list[Any]) -> np.ndarray:
    """Labels (N,) from Python values; None, and empty text, is a missing label, which is masked.

    The others keep their type: integers do not become text, or floats, because a neighbour is missing.

    >>> label_array([0, None, 2]).dtype.kind, label_array(["a", ""]).mask.tolist()
    ('i', [False, True])
    """
    absent = np.array([_is_missing(value) for value in values], dtype=bool)
    if not absent.any():
        return np.asarray(values)
    present = np.asarray([value for value, gone in zip(values, absent, strict=True) if not gone])
    filled = np.zeros(len(values), dtype=present.dtype if len(present) else np.dtype("U1"))
    filled[~absent] = present
    return np.ma.masked_array(filled, mask=absent)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def checked_labels(place: str, labels: np.ndarray, num_data: int) -> np.ndarray:
    """The labels (N,) as integers, booleans or text; a missing label is masked.

    Raises :class:`~probvae.errors.DataError` for labels that are not one a datum.
    """
    if labels.shape != (num_data,):
        raise DataError(
            f"{place}: expected labels of shape ({num_data},), got {labels.shape}. One datum has one label."
        )
    if labels.dtype.kind == "f":
        labels = np.ma.masked_invalid(labels) if np.isnan(labels).any() else labels
    return labels if labels.dtype.kind in "biu" else labels.astype(str)


def _dtype(kind: Any) -> np.dtype:
    import pyarrow

    if pyarrow.types.is_boolean(kind):
        return np.dtype(bool)
    return np.dtype(kind.to_pandas_dtype())


def _numbers(place: str, column: Any, name: str) -> np.ndarray:
    import pyarrow

    kind = column.type
    if pyarrow.types.is_null(kind):  # a column of empty cells has no type; that no value is there is found later
        return np.full(len(column), np.nan)
    if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)):
        raise DataError(
            f"{place}: expected numbers in column {name!r}, got {kind}. "
            f"Drop the column, or name it with labels={name!r}."
        )
    values = column.cast(pyarrow.float64()) if pyarrow.types.is_boolean(kind) else column
    return np.asarray(values.to_numpy(), dtype=np.float64)  # an empty cell becomes NaN, and is found as that
