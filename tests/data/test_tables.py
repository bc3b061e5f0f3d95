"""Tables: headers of numbers, missing labels, and DataFrames."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probvae import load_data
from probvae.data.frames import is_frame
from probvae.errors import ConfigError, DataError, DataWarning, ProbvaeError
from probvae.report.drawing.classes import read_labels

X = np.random.default_rng(0).normal(size=(50, 5))


def text_of(rows: np.ndarray) -> str:
    return "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist())


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_header_that_counts_is_a_header(width: int, quote: str, tmp_path: Path) -> None:
    names = [f"{quote}{number}{quote}" for number in range(width)]
    (tmp_path / "t.csv").write_text(",".join(names) + "\n" + text_of(X[:, :width]))
    data = load_data(tmp_path / "t.csv")
    assert data.num_data == 50
    assert data.feature_names == tuple(map(str, range(width)))


def test_what_pandas_writes_is_read(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 9, size=(20, 3))
    pd.DataFrame(counts).to_csv(tmp_path / "t.csv", index=False)
    np.testing.assert_array_equal(load_data(tmp_path / "t.csv").x, counts)


def test_row_numbers_of_pandas_are_no_column(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=list("abcde"))
    frame.to_csv(tmp_path / "t.csv")
    with pytest.warns(DataWarning, match="counts the rows, and is left out"):
        data = load_data(tmp_path / "t.csv")
    assert data.feature_names == tuple("abcde")
    frame[::-1].to_parquet(tmp_path / "t.parquet")
    data = load_data(tmp_path / "t.parquet")
    np.testing.assert_array_equal(data.x, X[::-1])
    (tmp_path / "t.csv").write_text(",b\n0,1.5\n2,2.5\n")
    assert load_data(tmp_path / "t.csv").data_dim == 2  # it does not count


def test_a_counting_header_with_labels(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("0,1,2\n1.5,2.5,7\n3.5,0.5,8\n")
    data = load_data(tmp_path / "t.csv", labels="2")
    assert data.x.shape == (2, 2)
    assert data.labels.tolist() == [7, 8]


@pytest.mark.parametrize(
    "text", ["0.0,1.0,2.0\n1.5,2.5,3.5\n", "5,1,2\n1,2,3\n", "0\n1\n2\n", "1,2,3\n4,6,5\n", "0,1,3\n4.5,6,5\n"]
)
def test_a_first_row_of_other_numbers_is_a_datum(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert load_data(tmp_path / "t.csv").num_data == text.count("\n")


LABELS: dict[str, list[Any]] = {
    "integers": [0, 1, None, 1],
    "text": ["cat", "dog", None, "dog"],
    "booleans": [True, False, None, True],
    "decimals": [0.5, 1.5, None, 1.5],
}


def labelled(folder: Path, kind: str, ending: str) -> Any:
    """A file, or a DataFrame, of four rows, the third of which has no label."""
    x, values = np.arange(8.0).reshape(4, 2) ** 2, LABELS[kind]
    if ending == "frame":
        return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": pd.array(values) if kind != "decimals" else values})
    path = folder / f"t{ending}"
    if ending == ".csv":
        cells = ["" if value is None else str(value) for value in values]
        path.write_text("a,b,y\n" + "".join(f"{a},{b},{y}\n" for (a, b), y in zip(x, cells, strict=True)))
    else:
        pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1], "y": values}), path)
    return path


@pytest.mark.parametrize("ending", [".csv", ".parquet", "frame"])
@pytest.mark.parametrize("kind", LABELS)
def test_a_missing_label_is_a_missing_label(kind: str, ending: str, tmp_path: Path) -> None:
    source = labelled(tmp_path, kind, ending)
    with pytest.raises(DataError, match=r"1 of 4 rows have no label \(first: row 2\).*missing='mask'"):
        load_data(source, labels="y")
    labels = load_data(source, labels="y", missing="mask").labels
    assert isinstance(labels, np.ma.MaskedArray)
    assert labels.mask.tolist() == [False, False, True, False]
    known = [value for value in LABELS[kind] if value is not None]
    assert labels.compressed().tolist() == [str(value) if kind == "decimals" else value for value in known]
    classes = read_labels(labels, 4)
    assert classes.codes.tolist()[2] == -1
    assert len(classes.names) == 2


def test_labels_of_an_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X[:4], labels=np.array([1.0, np.nan, 2.0, 1.0]))
    with pytest.raises(DataError, match="1 of 4 rows have no label"):
        load_data(tmp_path / "d.npz")
    assert load_data(tmp_path / "d.npz", missing="mask").labels.tolist() == ["1.0", None, "2.0", "1.0"]


def test_without_a_gap_labels_are_as_before(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y,k\n1,3,u\n2,4,v\n")
    assert load_data(pd.DataFrame({"a": [1.5, 2.5], "y": [3, 4]}), labels="y").labels.dtype.kind == "i"
    with pytest.raises(DataError, match="column 'k'"):
        load_data(tmp_path / "t.csv", labels="y")


class OnlyStream:
    """Whatever else hands over its columns as Arrow."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


class OnlyInterchange:
    """An older library, which knows the dataframe interchange protocol alone."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __dataframe__(self, **options: Any) -> Any:
        return self.table.__dataframe__(**options)


def frames() -> dict[str, Any]:
    table = pa.table({"a": X[:, 0], "b": X[:, 1]})
    found = {
        "pandas": pd.DataFrame(X[:, :2], columns=["a", "b"]),
        "pandas with an index": pd.DataFrame(X[:, :2], columns=["a", "b"], index=[f"row {n}" for n in range(50)]),
        "arrow": table,
        "a stream": OnlyStream(table),
        "the interchange protocol": OnlyInterchange(table),
    }
    for name in ("polars", "narwhals"):
        try:
            library = __import__(name)
        except ImportError:
            continue
        found[name] = (
            library.from_native(found["pandas"])
            if name == "narwhals"
            else library.DataFrame({"a": X[:, 0], "b": X[:, 1]})
        )
    return found


@pytest.mark.parametrize("name", frames())
def test_frames(name: str) -> None:
    data = load_data(frames()[name])
    np.testing.assert_array_equal(data.x, X[:, :2])
    assert data.x.dtype == np.float64
    assert data.feature_names == ("a", "b")
    scaled = load_data(frames()[name], scaling="standardize", covariates=["a"])
    np.testing.assert_array_equal(scaled.covariates[:, 0], X[:, 0])


def test_types_of_a_frame() -> None:
    frame = pd.DataFrame({"a": np.float32([1, 2, 3]), "b": pd.array([1, None, 3]), "c": [True, False, True]})
    data = load_data(frame, missing="mask")
    np.testing.assert_array_equal(data.x, [[1, 1, 1], [2, np.nan, 0], [3, 3, 1]])
    assert data.x.dtype == np.float32
    numbered = load_data(pd.DataFrame(X))
    assert numbered.feature_names == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"a": [1, 2], "k": ["u", "v"]}), "expected numbers in column 'k'"),
        (pd.DataFrame(X[:2, :2], columns=["a", "a"]), "with different names"),
        (pd.DataFrame({"a": [1, "u"]}), "Arrow does not take"),
        (pd.DataFrame({"a": []}), "got 0 rows"),
        (pd.DataFrame({"a": [1.0, np.nan]}), "contain NaN"),
    ],
)
def test_frames_that_are_no_data(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(ProbvaeError, match=message):
        load_data(frame)


def test_what_is_no_frame() -> None:
    for x in (X, X.tolist(), pd.Series(X[:, 0]), "iris", pd.DataFrame):
        assert not is_frame(x)
    with pytest.raises(ConfigError, match="split: 'a DataFrame' does not take it"):
        load_data(pd.DataFrame(X), split="test")
