"""What numpy, pyarrow and the csv module write is what is read."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from probvae.data import load_data

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)
DTYPES = st.sampled_from(["<f4", ">f4", "<f8", ">f8", "<f2", "<i8", ">i4", "|u1", "|i1", "|b1"])
SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 5)) | st.tuples(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Numbers of any type, shape and order; not all rows the same."""
    dtype = np.dtype(draw(DTYPES))
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    array = draw(hnp.arrays(dtype, draw(SHAPES), elements=elements))
    assume(_varied(array))
    return np.asfortranarray(array) if draw(st.booleans()) else array


TABLES = hnp.arrays(np.float32, st.tuples(st.integers(2, 7), st.integers(1, 5)), elements=FLOATS)


def _varied(array: np.ndarray) -> bool:
    return len(array) == 1 or bool((array != array[:1]).any())


@pytest.mark.filterwarnings("ignore::probvae.errors.DataWarning")  # float32 moves large integers, and says so
@QUICK
@given(array=arrays(), ending=st.sampled_from([".npy", ".npz"]))
def test_arrays(tmp_path: Path, array: np.ndarray, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    (np.save if ending == ".npy" else np.savez_compressed)(path, array)
    data = load_data(path)
    np.testing.assert_array_equal(data.x, array.reshape(len(array), -1).astype(data.x.dtype))
    assert data.x.dtype == (np.float64 if array.dtype.kind == "f" and array.dtype.itemsize == 8 else np.float32)
    assert data.image_shape == (array.shape[1:] if array.ndim == 3 else None)


@QUICK
@given(table=TABLES, header=st.booleans(), ends=st.sampled_from(["\n", "\r\n"]))
def test_csv(tmp_path: Path, table: np.ndarray, header: bool, ends: str) -> None:
    assume(_varied(table))
    names = [f"column {number}" for number in range(table.shape[1])]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator=ends)
        writer.writerows([names] * header + table.tolist())
    data = load_data(tmp_path / "t.csv")
    np.testing.assert_array_equal(data.x, table)
    if header:
        assert data.feature_names == tuple(names)


@QUICK
@given(table=TABLES, kind=st.sampled_from([np.float32, np.float64, np.float16]), group=st.integers(1, 5))
def test_parquet(tmp_path: Path, table: np.ndarray, kind: type, group: int) -> None:
    with np.errstate(over="ignore"):
        columns = table.astype(kind)
    assume(_varied(columns) and np.isfinite(columns).all())
    names = [f"column {number}" for number in range(table.shape[1])]
    pq.write_table(pa.table(list(columns.T.copy()), names=names), tmp_path / "t.parquet", row_group_size=group)
    data = load_data(tmp_path / "t.parquet")
    np.testing.assert_array_equal(data.x, columns.astype(data.x.dtype))
    assert data.x.dtype == (np.float64 if kind is np.float64 else np.float32)
    assert data.feature_names == tuple(names)
