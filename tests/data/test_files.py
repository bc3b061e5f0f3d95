"""Files: real ones, wrong ones, damaged ones."""

import io
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probvae.data import load_data
from probvae.errors import ProbvaeError

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


def write_csv(path: Path, rows: np.ndarray = X, header: str | None = "a,b,c") -> None:
    lines = [",".join(repr(float(v)) for v in row) for row in rows]
    path.write_text("\n".join(([header] if header else []) + lines) + "\n")


def write_parquet(path: Path, rows: np.ndarray = X, **more: list) -> None:
    columns = {name: rows[:, i] for i, name in enumerate("abc")}
    pq.write_table(pa.table({**columns, **more}), path)


def test_npy_is_memory_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    data = load_data(tmp_path / "x.npy")
    np.testing.assert_array_equal(data.x, X)
    assert isinstance(data.x, np.memmap) or isinstance(data.x.base, np.memmap)
    assert data.name == "x.npy"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.uint8, bool, ">f4"])
def test_number_types(tmp_path: Path, dtype: type) -> None:
    values = (np.arange(12).reshape(4, 3) % 2).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    data = load_data(tmp_path / "x.npy")
    assert data.x.dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_array_equal(data.x, values.astype(float))


def test_images_are_flattened(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(size=(5, 4, 6))
    np.save(tmp_path / "x.npy", images)
    data = load_data(tmp_path / "x.npy")
    assert data.image_shape == (4, 6)
    np.testing.assert_array_equal(data.x, images.reshape(5, 24))


def test_npz_with_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, labels=np.arange(20), other=np.zeros(3))
    data = load_data(tmp_path / "d.npz")
    np.testing.assert_array_equal(data.x, X)
    assert data.labels.tolist() == list(range(20))


def test_npz_with_one_array(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", values=X)
    np.testing.assert_array_equal(load_data(tmp_path / "d.npz").x, X)


@pytest.mark.parametrize("header", ["a,b,c", None])
def test_csv(tmp_path: Path, header: str | None) -> None:
    write_csv(tmp_path / "t.csv", header=header)
    data = load_data(tmp_path / "t.csv")
    np.testing.assert_allclose(data.x, X, rtol=1e-6)
    assert data.feature_names == (("a", "b", "c") if header else ("f0", "f1", "f2"))


def test_parquet_with_labels(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", kind=["u", "v"] * 10)
    data = load_data(tmp_path / "t.parquet", labels="kind")
    np.testing.assert_array_equal(data.x, X)
    assert data.labels.tolist() == ["u", "v"] * 10
    assert data.feature_names == ("a", "b", "c")


def test_columns_of_one_name_are_not_taken_for_one(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", header="a,a,b")
    np.testing.assert_allclose(load_data(tmp_path / "t.csv").x, X, rtol=1e-6)


def test_ten_thousand_columns_take_no_more_than_seconds(tmp_path: Path) -> None:
    rows = np.arange(30_000).reshape(3, 10_000)
    write_csv(tmp_path / "t.csv", rows, header=None)
    start = time.perf_counter()
    np.testing.assert_array_equal(load_data(tmp_path / "t.csv").x, rows)
    assert time.perf_counter() - start < 10


def nan_in_row_7(path: Path) -> None:
    rows = X.copy()
    rows[7, 1], rows[9, 0] = np.nan, np.inf
    np.save(path, rows)


def claims_terabytes(path: Path) -> None:
    np.lib.format.write_array_header_1_0(
        file := io.BytesIO(), {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    path.write_bytes(file.getvalue() + b"\x00" * 100)


def zip_bomb(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + b"\x00" * 10**6)


def packed_zeros(path: Path) -> None:
    """320 MB of zeros in a third of one."""
    np.savez_compressed(path, x=np.zeros((10**7, 8), np.float32))


def bytes_that_become_floats(path: Path) -> None:
    """1.5 GB of bytes are read into 6 GB of float32."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1_500_000_000, 1)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + b"\x00" * 10**6)


BAD = {
    "empty.npy": (lambda p: p.write_bytes(b""), "the file is empty"),
    "empty.csv": (lambda p: p.write_bytes(b""), "the file is empty"),
    "header-only.csv": (lambda p: p.write_text("a,b,c\n"), "got 0 rows"),
    "no-rows.npy": (lambda p: np.save(p, np.zeros((0, 3))), "at least one value"),
    "nan.npy": (nan_in_row_7, r"2 of 20 rows contain NaN or infinity \(first: row 7\)"),
    "constant.npy": (lambda p: np.save(p, np.ones((9, 3))), "all rows are the same"),
    "flat.npy": (lambda p: np.save(p, np.arange(5.0)), r"expected shape \(N, D\)"),
    "deep.npy": (lambda p: np.save(p, np.zeros((2, 2, 2, 2))), r"expected shape \(N, D\)"),
    "text.npy": (lambda p: np.save(p, np.array([["a"]])), "expected numbers"),
    "complex.npy": (lambda p: np.save(p, np.zeros((3, 3), complex)), "expected numbers"),
    "object.npy": (lambda p: np.save(p, np.array([[{}]]), allow_pickle=True), "object.npy"),
    "huge.npy": (claims_terabytes, "huge.npy"),
    "huge.npz": (zip_bomb, "GiB"),
    "really-parquet.csv": (lambda p: write_parquet(p), "content is that of a .parquet file"),
    "really-npy.npz": (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00" + b"x" * 50), "content is that of a .npy file"),
    "really-csv.parquet": (lambda p: write_csv(p), "not that of a .parquet file"),
    "words.csv": (lambda p: p.write_text("a,b\n1,x\n2,y\n"), "column 'b'.*labels='b'"),
    "gap.csv": (lambda p: p.write_text("a,b\n1,2\n3,\n"), r"1 of 2 rows contain NaN or infinity \(first: row 1\)"),
    "ragged.csv": (lambda p: p.write_text("a,b\n1,2\n3\n"), "comma-separated"),
    "two.npz": (lambda p: np.savez(p, u=X, v=X), "expected an array named x"),
    "labels.npz": (lambda p: np.savez(p, x=X, labels=np.arange(3)), r"labels of shape \(20,\)"),
    "packed.npz": (packed_zeros, "more than numbers can be packed"),
    "bytes.npz": (bytes_that_become_floats, "would take 5.6 GiB"),
    "wide.csv": (lambda p: p.write_text(",".join(["1"] * 20_001) + "\n"), "at most 20000 columns"),
    "pipe.npy": (os.mkfifo, "expected a file, got a pipe or device"),
    "endless.csv": (lambda p: p.symlink_to("/dev/zero"), "expected a file, got a pipe or device"),
    "folder.npz": (lambda p: p.mkdir(), "expected a file, got a folder"),
    "loop.npy": (lambda p: p.symlink_to(p), "cannot be read"),
    "overflow.csv": (lambda p: p.write_text("a\n1\n1e300\n"), r"infinity \(first: row 1\)"),
    "data.xlsx": (lambda p: p.write_bytes(b"PK"), "expected a file ending in"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file(tmp_path: Path, name: str) -> None:
    write, message = BAD[name]
    write(tmp_path / name)
    with pytest.raises(ProbvaeError, match=message):
        load_data(tmp_path / name)


def test_missing_file_and_column(tmp_path: Path) -> None:
    with pytest.raises(ProbvaeError, match="there is no such file"):
        load_data(tmp_path / "nothing.csv")
    write_csv(tmp_path / "t.csv")
    with pytest.raises(ProbvaeError, match="File name too long"):
        load_data(tmp_path / ("x" * 300 + ".npy"))
    with pytest.raises(ProbvaeError, match=r"no column 'kind'.*It has a, b, c"):
        load_data(tmp_path / "t.csv", labels="kind")


def _bytes_of(write, name: str, folder: Path) -> bytes:
    write(folder / name)
    return (folder / name).read_bytes()


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    writers = {
        "x.npy": lambda p: np.save(p, X),
        "x.npz": lambda p: np.savez_compressed(p, x=X, labels=np.arange(20)),
        "x.csv": write_csv,
        "x.parquet": write_parquet,
    }
    return {name: _bytes_of(write, name, folder) for name, write in writers.items()}


@pytest.mark.filterwarnings("ignore::probvae.errors.DataWarning")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choice=st.data())
def test_damaged_files_load_or_are_refused(originals: dict[str, bytes], tmp_path: Path, choice: st.DataObject) -> None:
    name = choice.draw(st.sampled_from(sorted(originals)))
    content = bytearray(originals[name])
    for _ in range(choice.draw(st.integers(0, 4))):
        content[choice.draw(st.integers(0, len(content) - 1))] = choice.draw(st.integers(0, 255))
    content = content[: choice.draw(st.integers(0, len(content)))] if choice.draw(st.booleans()) else content
    (tmp_path / name).write_bytes(content)
    try:
        data = load_data(tmp_path / name)
    except ProbvaeError:
        return
    assert np.isfinite(data.x).all()
