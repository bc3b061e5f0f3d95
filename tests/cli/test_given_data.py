"""Conditional models and missing data on the command line, from a real table."""

from pathlib import Path

import numpy as np
import pytest

SMALL = ("--latent-dim", "1", "--epochs", "3", "--batch-size", "32", "--hidden", "8", "--no-progress", "--no-gap")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three measurements with holes, an age, and a group."""
    rng = np.random.default_rng(0)
    num = 120
    age, group, z = rng.normal(50, 10, num), rng.choice(["red", "blue"], num), rng.normal(size=num)
    x = np.stack([z + 0.1 * age, -z + 2 * (group == "red"), 0.5 * z], 1) + 0.3 * rng.normal(size=(num, 3))
    holed = np.where(rng.random((num, 3)) < 0.2, np.nan, x)
    path = tmp_path_factory.mktemp("table") / "table.csv"
    cells = [["" if np.isnan(v) else f"{v:.4f}" for v in row] for row in holed]
    rows = [",".join([*row, f"{a:.3f}", g]) for row, a, g in zip(cells, age, group, strict=True)]
    path.write_text("\n".join(["u,v,w,age,group", *rows]))
    return path


def fit(probvae, table: Path, out: Path, *options: str) -> None:
    done = probvae(
        "fit", "--data", table, "--labels", "group", "--scaling", "standardize", "--out", out, *SMALL, *options
    )
    assert done.returncode == 0, done.stderr


def test_missing_entries_from_table_to_imputation(probvae, table: Path, tmp_path: Path) -> None:
    fit(probvae, table, tmp_path / "run", "--missing", "mask")
    done = probvae("impute", tmp_path / "run", "-n", "20")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "run" / "imputed.npz") as content:
        filled = dict(content)
    assert filled["draws"].shape == (20, 120, 4)
    assert filled["missing"].sum() > 50
    assert np.isfinite(filled["mean"]).all()
    assert (filled["lower"] <= filled["upper"]).all()
    assert (filled["lower"] < filled["upper"])[filled["missing"]].all()
    assert f"{filled['missing'].sum()} of 480 entries imputed" in done.stdout


def test_missing_entries_are_refused_by_default(probvae, table: Path, tmp_path: Path) -> None:
    done = probvae("fit", "--data", table, "--labels", "group", "--out", tmp_path / "run", *SMALL)
    assert done.returncode == 2
    assert "or fit with --missing mask" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("undrawn", "unrefined")
def test_conditional_on_a_column(probvae, table: Path, tmp_path: Path) -> None:
    fit(probvae, table, tmp_path / "run", "--missing", "mask", "--condition", "age")
    done = probvae("sample", tmp_path / "run", "--given", "60", "-n", "10")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "run" / "samples.npz") as content:
        assert content["x"].shape == (10, 3)
    for command in (("reconstruct",), ("encode",), ("gap", "--num-data", "5")):
        done = probvae(command[0], tmp_path / "run", *command[1:])
        assert done.returncode == 0, done.stderr


def test_conditional_on_labels(probvae, table: Path, tmp_path: Path) -> None:
    fit(probvae, table, tmp_path / "run", "--missing", "mask", "--condition", "labels")
    assert probvae("sample", tmp_path / "run", "--given", "red").returncode == 0
    unseen = probvae("sample", tmp_path / "run", "--given", "green")
    assert unseen.returncode == 2
    assert "label green" in unseen.stderr
    assert "blue, red" in unseen.stderr
    silent = probvae("sample", tmp_path / "run")
    assert silent.returncode == 2
    assert "--given" in silent.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--condition", "weight"), "--condition: unknown column of table.csv 'weight'"),
        (("--condition", "age,u,v,w"), "no column of table.csv is left"),
        (("--missing", "drop"), "unknown missing 'drop'"),
        (("--exposure", "hours"), "--exposure: unknown column of table.csv 'hours'"),
    ],
)
def test_wrong_columns(probvae, table: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    arguments = ("--missing", "mask", *options) if options[0] != "--missing" else options
    done = probvae("fit", "--data", table, "--labels", "group", "--out", tmp_path / "run", *SMALL, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()
