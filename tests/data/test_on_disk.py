"""Data that stay on the disk: the same numbers as in memory, read a few at a time."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from probvae.cli import main
from probvae.data import RowsOnDisk, column_variances, load_data
from probvae.errors import ArgumentError, ConfigError, DataError, SupportError

ROOT = Path(__file__).parents[2]

# 1000 rows of 5 floats are 0.02 MB
LIMIT = 0.01


def values(dtype: str = "float32", num: int = 1000) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(num, 5)) * [1, 2, 3, 40, 0] + 100).clip(0, 200).astype(dtype)


def saved(x: np.ndarray, folder: Path) -> Path:
    np.save(folder / "x.npy", x)
    return folder / "x.npy"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that 1000 rows are many blocks, and what is gathered over blocks is put to the test."""
    monkeypatch.setattr("probvae.data.on_disk._BLOCK", 700)
    monkeypatch.setattr("probvae.data.on_disk._SCATTERED", 7)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", ">f4", "float16"])
@pytest.mark.parametrize("arguments", [{}, {"scaling": "unit"}, {"scaling": "unit", "binarization": "threshold"}])
def test_the_numbers_are_those_in_memory(arguments: dict, dtype: str, tmp_path: Path) -> None:
    file = saved(values(dtype), tmp_path)
    disk, memory = load_data(file, in_memory_limit=LIMIT, **arguments), load_data(file, **arguments)
    assert isinstance(disk.x, RowsOnDisk)
    assert isinstance(memory.x, np.ndarray)
    assert disk.x.dtype == memory.x.dtype
    np.testing.assert_array_equal(disk.x[:], memory.x)
    rows = np.array([990, 3, 3, 512])
    np.testing.assert_array_equal(disk.x[rows], memory.x[rows])
    np.testing.assert_array_equal(disk.take(rows).x[1:], memory.x[rows][1:])
    np.testing.assert_array_equal(disk.take(slice(5, 900)).take(rows[1:]).x[:], memory.x[5:900][rows[1:]])
    assert disk.fingerprint() == memory.fingerprint()


@pytest.mark.parametrize("missing", [False, True])
def test_standardised_and_variances(missing: bool, tmp_path: Path) -> None:
    x = values("float64")
    if missing:
        x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
    file, arguments = saved(x, tmp_path), {"missing": "mask" if missing else "refuse"}
    raw = load_data(file, in_memory_limit=LIMIT, **arguments).x
    np.testing.assert_allclose(column_variances(raw), np.nanvar(x, axis=0), rtol=1e-11, atol=1e-20)
    disk = load_data(file, in_memory_limit=LIMIT, scaling="standardize", **arguments).x[:]
    centred = x - np.nanmean(x, axis=0)
    spread = np.nanstd(x, axis=0)
    np.testing.assert_allclose(disk, centred / np.where(spread < 1e-9, 1, spread), rtol=1e-10, atol=1e-10)


def test_exposure_and_first_rows(tmp_path: Path) -> None:
    x = values("uint8")
    data = load_data(saved(x, tmp_path), in_memory_limit=LIMIT, exposure="total", num_data=700)
    np.testing.assert_array_equal(data.exposure, x[:700].sum(axis=1))
    assert data.x.shape == (700, 5)


def test_the_limit_is_one_of_sizes(tmp_path: Path) -> None:
    """1000 * 5 bytes of the file, 20000 as the floats that they become."""
    file = saved(values("uint8"), tmp_path)
    assert isinstance(load_data(file, in_memory_limit=19_999 / 2**20).x, RowsOnDisk)
    assert isinstance(load_data(file, in_memory_limit=20_000 / 2**20).x, np.ndarray)


def test_images(tmp_path: Path) -> None:
    data = load_data(saved(values().reshape(200, 5, 5), tmp_path), in_memory_limit=LIMIT)
    assert data.image_shape == (5, 5)
    assert data.x.shape == (200, 25)


def test_what_is_checked_is_checked_in_every_block(tmp_path: Path) -> None:
    x = values()
    x[[700, 999], 2] = np.nan
    with pytest.raises(DataError, match=r"2 of 1000 rows contain NaN or infinity \(first: row 700\)"):
        load_data(saved(x, tmp_path), in_memory_limit=LIMIT)
    x[:, 2] = np.nan
    with pytest.raises(DataError, match="column 2 has no observed value"):
        load_data(saved(x, tmp_path), in_memory_limit=LIMIT, missing="mask")
    with pytest.raises(DataError, match="all rows are the same"):
        load_data(saved(np.ones((1000, 5)), tmp_path), in_memory_limit=LIMIT)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"binarization": "threshold"}, SupportError, r"needs values in \[0, 1\], got 0 to 200"),
        ({"binarization": "fixed", "scaling": "unit"}, ConfigError, "Use 'fresh' or 'threshold'"),
        ({"in_memory_limit": 0}, ArgumentError, "in_memory_limit: expected a finite number > 0"),
    ],
)
def test_mistakes(arguments: dict, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        load_data(saved(values(), tmp_path), **{"in_memory_limit": LIMIT, **arguments})


def test_nothing_is_read_whole_unawares(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = RowsOnDisk(values())
    np.testing.assert_array_equal(np.asarray(rows), values())
    monkeypatch.setattr("probvae.data.on_disk.IN_MEMORY_LIMIT", 10_000)
    with pytest.raises(DataError, match=r"these data stay on the disk.*Take fewer rows"):
        np.asarray(rows)
    assert np.asarray(rows.take(slice(100))).shape == (100, 5)
    with pytest.raises(ArgumentError, match="read by a slice or a list of row numbers, got 3"):
        rows[3]


def test_changes_to_a_copy_on_write_map_are_not_lost(tmp_path: Path) -> None:
    x = np.load(saved(values(), tmp_path), mmap_mode="c")
    x[3] = 7
    rows = RowsOnDisk(x)
    assert (rows[3:4] == 7).all()
    assert (rows[3:4] == 7).all()


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A fit to a file above the limit ends with the same kind of run as one below it."""

    def fit(*arguments: object) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["probvae", "fit", "--data", "x.npy", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    saved(values(), tmp_path)
    monkeypatch.chdir(tmp_path)
    options = ("--scaling", "standardize", "--epochs", 2, "--hidden", 8, "--no-gap", "--json", "--no-progress")
    limit = ("--set", f"data.in_memory_limit={LIMIT}")
    code, out, err = fit(*options, *limit, "--out", "disk")
    assert not code, err
    assert {"num_train", "elbo"} <= json.loads(out).keys()
    assert json.loads(out)["num_train"] == 800
    code, _, err = fit(*options, *limit, "--guide", "free", "--out", "b")
    assert code == 2
    assert "guide: one with parameters for each datum needs the data in memory" in err


_FIT_IN_LITTLE_MEMORY = """
import json, sys
import numpy as np, torch
import probvae
from probvae.data import RowsOnDisk
from probvae.inference import DiagonalGuide, LinearEncoder
from probvae.models import (GaussianLikelihood, LatentModel, LinearDecoder, StandardNormalPrior)
from tests.support.memory import peak

def make():
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 1000), GaussianLikelihood(1000, variance="optimal"))
    return probvae.VAE(model, DiagonalGuide(LinearEncoder(1000), 2, num_features=1000))

options = {"batch_size": 500, "validation": 0.1, "progress": False}
probvae.fit(make(), torch.randn(1000, 1000), epochs=1, **options)  # what any fit takes
before = peak()
result = probvae.fit(make(), RowsOnDisk(np.load(sys.argv[1], mmap_mode="r")), epochs=2, **options)
print(json.dumps([(peak() - before) / 2**20, [record["validation_elbo"] for record in result.history]]))
"""


@pytest.mark.slow
def test_a_fit_to_400_mb_takes_less_than_half_of_them(tmp_path: Path) -> None:
    """A real file and a real process: the most that it ever held, pages of the file among them."""
    rng = np.random.default_rng(0)
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (104_000, 1000))
    z, weight = rng.normal(size=(len(x), 1)), rng.normal(size=(1, 1000))
    for start in range(0, len(x), 4000):
        x[start : start + 4000] = z[start : start + 4000] @ weight
    x.flush()
    command = [sys.executable, "-c", _FIT_IN_LITTLE_MEMORY, str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    grown, elbos = json.loads(done.stdout)
    # MB: 140 for a file of any size, three pools of 16 and evaluation's blocks among them; in memory it would be 800
    assert grown < 200, grown
    assert elbos[1] > elbos[0]
