"""DataFrames: pandas, polars, and whatever else hands over its columns as Arrow."""

import warnings
from typing import Any

import numpy as np

from probvae.data.arrow_tables import check_width, read_table
from probvae.data.raw_data import RawData
from probvae.errors import DataError


def is_frame(x: object) -> bool:
    """True for a table with columns: it hands them over as Arrow, or by the dataframe interchange protocol."""
    return not isinstance(x, type) and (hasattr(x, "__arrow_c_stream__") or hasattr(x, "__dataframe__")) and _wide(x)


def read_frame(frame: Any, labels: str | None = None, name: str = "DataFrame") -> RawData:
    """The data in a DataFrame, as those of a table in a file; its index is no column.

    Raises :class:`~probvae.errors.DataError` for a column without numbers, and for a frame that gives no Arrow table.
    """
    check_width(name, len(frame.columns) if hasattr(frame, "columns") else 0)
    return read_table(name, name, _as_table(frame, name), None if labels is None else str(labels))


def frame_values(frame: Any, name: str = "x") -> np.ndarray:
    """The numbers (N, D) of a DataFrame, NaN where an entry is missing: float64 where a column needs it."""
    raw = read_frame(frame, name=name)
    return np.asarray(raw.data.x).astype(raw.dtype)


def _wide(x: object) -> bool:
    """False for one column alone, such as a pandas or polars Series, which is an array for numpy."""
    return getattr(x, "ndim", 2) != 1 and type(x).__name__ not in ("Series", "ChunkedArray")


def _as_table(frame: Any, name: str) -> Any:
    import pyarrow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that are no text are made text, which is no news here
            if type(frame).__module__.split(".")[0] == "pandas":
                return pyarrow.Table.from_pandas(frame, preserve_index=False)  # its Arrow stream has the index in it
            if hasattr(frame, "__arrow_c_stream__"):
                return pyarrow.table(frame)
            from pyarrow import interchange

            return interchange.from_dataframe(frame)
    except Exception as error:  # libraries refuse what Arrow does not know with exceptions of all kinds
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise DataError(
            f"{name}: expected a DataFrame whose columns are numbers, got one that Arrow does not take ({reason}). "
            "Keep columns of numbers with different names, or pass an array."
        ) from error
