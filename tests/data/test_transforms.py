"""Scalings: the statistics of the rows that they were fitted on, in the precision of the source, for every row."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probvae.data import RowsOnDisk, Transform, column_variances, load_data
from probvae.errors import ConfigError, DataWarning, ShapeError, UnknownNameError

EXTREMES = {
    "near zero": (0.0, 1.0),
    "time stamps": (1.7e9, 1000.0),
    "pressure": (101325.0, 0.05),
    "far away": (1e6, 0.5),
    "tiny": (1e-200, 1e-201),
    "huge": (1e200, 1e199),
    "negative": (-1e12, 30.0),
}


def exact_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) of the observed entries, by exact rational numbers."""
    from fractions import Fraction

    import mpmath

    means, spreads = [], []
    for column in x.T:
        values = [Fraction(float(value)) for value in column if not np.isnan(value)]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        means.append(float(mean))
        spreads.append(float(mpmath.sqrt(mpmath.mpf(variance.numerator) / mpmath.mpf(variance.denominator))))
    return np.array(means), np.array(spreads)


@pytest.fixture(params=["whole", "chunks"])
def _chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "chunks":
        monkeypatch.setattr("probvae.data.transforms._CHUNK", 70)


@pytest.mark.usefixtures("_chunked")
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", EXTREMES)
def test_statistics_are_the_exact_ones(name: str, missing: bool) -> None:
    offset, spread = EXTREMES[name]
    rng = np.random.default_rng(0)
    x = np.column_stack([offset + spread * rng.normal(size=300), spread * rng.normal(size=300)])
    if missing:
        x[0] = np.nan  # nothing may begin at the first row
        x[rng.random(x.shape) < 0.2] = np.nan
    mean, deviation = exact_moments(x)
    transform = Transform.fit(x, "standardize")
    np.testing.assert_allclose(transform.shift, mean, rtol=1e-15, atol=1e-15 * spread)
    np.testing.assert_allclose(transform.divisor, deviation, rtol=1e-12)
    if "huge" not in name and "tiny" not in name:
        np.testing.assert_allclose(column_variances(x), deviation**2, rtol=1e-12)
    scaled = transform.apply(x)
    np.testing.assert_allclose(np.nanstd(scaled, axis=0), 1, rtol=1e-9)
    np.testing.assert_allclose(transform.undo(scaled), x, rtol=1e-14, atol=1e-14 * spread)


def test_an_outlier_in_the_first_row_costs_no_digits() -> None:
    x = np.random.default_rng(0).normal(size=(1000, 1))
    x[0] = 1e9
    mean, deviation = exact_moments(x)
    transform = Transform.fit(x, "standardize")
    np.testing.assert_allclose([transform.shift, transform.divisor], [mean, deviation], rtol=1e-14)


@pytest.mark.usefixtures("_chunked")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8"])
def test_a_constant_column_is_only_centred(dtype: str) -> None:
    """Also where upstream arithmetic has moved its values by one unit in the last place."""
    x = np.full((500, 2), 100, dtype)
    x[:, 1] = np.arange(500) % 7
    if np.dtype(dtype).kind == "f":
        x[::3, 0] = np.nextafter(x[0, 0], np.dtype(dtype).type(200))
    transform = Transform.fit(x, "standardize")
    assert transform.divisor[0] == 1
    assert transform.divisor[1] == pytest.approx(x[:, 1].astype(float).std(), rel=1e-6)


@pytest.mark.parametrize(("dtype", "ratio"), [("float64", 1e-13), ("float32", 1e-5), ("float64", 5e-7)])
def test_a_column_that_varies_more_than_its_rounding_is_scaled(dtype: str, ratio: float) -> None:
    x = (1000 * (1 + ratio * np.random.default_rng(0).normal(size=(4000, 1)))).astype(dtype)
    assert Transform.fit(x, "standardize").apply(x).std() == pytest.approx(1, abs=1e-6)


def test_unit() -> None:
    x = np.array([[2.0, np.nan], [4.0, 10.0]])
    transform = Transform.fit(x, "unit")
    np.testing.assert_array_equal(transform.apply(x), [[0, np.nan], [0.25, 1]])
    np.testing.assert_array_equal(transform.undo(transform.apply(x)), x)
    pixels = Transform.fit(x, "unit", pixel_maximum=16.0)
    np.testing.assert_array_equal(pixels.apply(x), x / 16)


@pytest.mark.parametrize("scaling", ["none", "unit", "standardize"])
def test_plain_data_hold_every_bit(scaling: str) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3)) * [1e-300, 1, 1e300]
    transform = Transform.fit(x, scaling)
    again = Transform.from_data(json.loads(json.dumps(transform.as_data())))
    assert again.scaling == scaling
    np.testing.assert_array_equal(again.apply(x), transform.apply(x))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"scaling": "log", "shift": [0], "divisor": [1]},
        {"scaling": "unit", "shift": 0, "divisor": [1]},
        {"scaling": "unit", "shift": [0, 1], "divisor": [1]},
        {"scaling": "unit", "shift": [0], "divisor": [0]},
        {"scaling": "unit", "shift": ["0"], "divisor": [1]},
        {"scaling": "unit", "shift": [float("nan")], "divisor": [1]},
        {"scaling": "unit", "shift": [], "divisor": []},
    ],
)
def test_what_is_no_transform(content: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        Transform.from_data(content)


def test_unknown_name_and_other_width() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'standardize'"):
        Transform.fit(np.eye(3), "standardise")
    with pytest.raises(ShapeError, match="expected 3 columns"):
        Transform.fit(np.eye(3), "standardize").rows(np.eye(4), np.dtype("float32"))


SECONDS = 1_700_000_000 + np.arange(100)


def write_table(path: Path, values: np.ndarray) -> None:
    """Two columns (N, 2) in a file of the kind that the name of ``path`` says."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, x=values)
    elif path.suffix == ".csv":
        path.write_text("t,u\n" + "".join(f"{t!r},{u!r}\n" for t, u in values.tolist()))
    else:
        pq.write_table(pa.table({"t": values[:, 0], "u": values[:, 1]}), path)


@pytest.mark.parametrize("scaling", ["unit", "standardize"])
@pytest.mark.parametrize("dtype", ["int64", "uint32", "float64", ">i4"])
@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv", ".parquet", "disk"])
def test_seconds_stay_different(ending: str, dtype: str, scaling: str, tmp_path: Path) -> None:
    """float32 has 29 values for these 100 seconds: they are scaled before they are cast."""
    values = np.column_stack([SECONDS, SECONDS + 7]).astype(dtype)
    path = tmp_path / ("x.npy" if ending == "disk" else f"x{ending}")
    write_table(path, values.astype(values.dtype.newbyteorder("=")) if ending == ".parquet" else values)
    limit = {"in_memory_limit": 0.0005} if ending == "disk" else {}
    data = load_data(path, scaling=scaling, **limit)
    assert isinstance(data.x, RowsOnDisk) == (ending == "disk")
    x = data.x[:]
    wide = dtype == "float64" and ending != ".csv"
    assert x.dtype == (np.float64 if wide else np.float32)
    assert len(np.unique(x[:, 0])) == 100
    exact = (values - np.mean(values.astype(float), 0)) / np.arange(100).std()
    if scaling == "standardize":
        np.testing.assert_allclose(x, exact, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(data.transform.undo(x), values, atol=2e-5)


def test_columns_that_leave_x_keep_their_digits(tmp_path: Path) -> None:
    write_table(tmp_path / "x.csv", np.column_stack([SECONDS, np.arange(100) ** 2]))
    data = load_data(tmp_path / "x.csv", covariates=["t"])
    np.testing.assert_array_equal(data.covariates[:, 0], SECONDS)
    np.testing.assert_array_equal(load_data(tmp_path / "x.csv", exposure="t").exposure, SECONDS)


@pytest.mark.parametrize("ending", [".npy", ".csv", ".parquet"])
def test_lost_digits_are_told(ending: str, tmp_path: Path) -> None:
    write_table(tmp_path / f"x{ending}", np.column_stack([SECONDS, SECONDS]))
    with pytest.warns(DataWarning, match=r"column .* moves its values by up to 64. Use scaling='standardize'"):
        load_data(tmp_path / f"x{ending}")


@pytest.mark.parametrize("scaling", ["unit", "standardize"])
def test_new_rows_are_scaled_as_the_old_ones_were(scaling: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 2)) * [1, 100] + [5, 0]
    write_table(tmp_path / "old.csv", x[:40])
    write_table(tmp_path / "new.csv", x)
    write_table(tmp_path / "one.csv", x[50:51])
    old = load_data(tmp_path / "old.csv", scaling=scaling)
    new = load_data(tmp_path / "new.csv", transform=old.transform)
    np.testing.assert_array_equal(new.x[:40], old.x)
    np.testing.assert_array_equal(load_data(tmp_path / "one.csv", transform=old.transform).x, new.x[50:51])
    with pytest.raises(ConfigError, match="the transform has one already"):
        load_data(tmp_path / "new.csv", transform=old.transform, scaling=scaling)


@pytest.mark.parametrize("binarization", ["fixed", "threshold", "fresh"])
def test_values_beyond_those_of_the_training_rows_count_as_the_nearest(binarization: str, tmp_path: Path) -> None:
    write_table(tmp_path / "old.csv", np.array([[0.0, 1.0], [2.0, 1.5]]))
    write_table(tmp_path / "new.csv", np.array([[-1.0, 5.0], [1.0, 2.0]]))
    transform = load_data(tmp_path / "old.csv", scaling="unit").transform
    with pytest.warns(DataWarning, match=r"1 of 2 rows have values beyond those of the training rows"):
        data = load_data(tmp_path / "new.csv", transform=transform, binarization=binarization)
    np.testing.assert_array_equal(data.x[0], [0, 1])
