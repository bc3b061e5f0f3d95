"""A row becomes the same numbers whatever file it stands in, and comes back in the units of the user."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import probvae as package
from probvae.experiments.compare import read_entry
from probvae.storage.untrusted import FORMAT
from tests.cli.test_commands import arrays_in
from tests.support.command_line import Run

pytestmark = pytest.mark.usefixtures("undrawn", "unrefined")

SMALL = ("--epochs", "2", "--hidden", "4", "--no-gap", "--no-progress", "--no-figures")
SCALINGS = ("none", "unit", "standardize")
ENDINGS = (".npy", ".npz", ".csv", ".parquet")
OFFSET = np.array([0.0, 5.0, 1.7e9])


def table(seed: int, num: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, 1)) * [1.0, 10.0, 1000.0] + rng.normal(size=(num, 3)) * [0.2, 2.0, 200.0] + OFFSET


def write(path: Path, x: np.ndarray) -> Path:
    """``x`` (N, D) in a file of the kind that the name of ``path`` says; NaN is an empty cell."""
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".npz":
        np.savez(path, x=x)
    elif path.suffix == ".csv":
        cells = [",".join("" if np.isnan(value) else repr(value) for value in row) for row in x.tolist()]
        path.write_text("a,b,c\n" + "\n".join(cells) + "\n")
    else:
        pq.write_table(pa.table({name: x[:, number] for number, name in enumerate("abc")}), path)
    return path


def fitted(probvae: Run, data: Path, scaling: str, out: Path, *more: object) -> Path:
    options = () if scaling == "default" else ("--scaling", scaling)
    done = probvae("fit", "--data", data, *options, *SMALL, *more, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def result(probvae: Run, command: str, run: Path, out: Path, *arguments: object) -> dict[str, np.ndarray]:
    done = probvae(command, run, *arguments, "--out", out)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.npz")
    return arrays_in(file)


@pytest.fixture(scope="module")
def runs(probvae: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each scaling, on a table whose last column are time stamps; "none" leaves these out."""
    home = tmp_path_factory.mktemp("scaled")
    found = {}
    for scaling in SCALINGS:
        x = table(0) - (OFFSET if scaling == "none" else 0)
        x = x / [1, 10, 1000] if scaling == "none" else x
        found[scaling] = fitted(probvae, write(home / f"{scaling}.csv", x), scaling, home / scaling)
    return found


def rows_for(scaling: str, seed: int = 1) -> np.ndarray:
    x = table(seed)
    return (x - OFFSET) / [1, 10, 1000] if scaling == "none" else x


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_row_has_one_code_and_one_reconstruction(
    probvae: Run, runs: dict[str, Path], scaling: str, ending: str, tmp_path: Path
) -> None:
    x = rows_for(scaling)
    files = {"all": x, "one": x[7:8], "far": np.concatenate([x[7:8], x + 3 * x.std(0)])}
    place = {"all": 7, "one": 0, "far": 0}
    codes, shown = {}, {}
    for name, values in files.items():
        file = write(tmp_path / f"{name}{ending}", values)
        codes[name] = result(probvae, "encode", runs[scaling], tmp_path / f"{name}-e", file)["mean"][place[name]]
        found = result(probvae, "reconstruct", runs[scaling], tmp_path / f"{name}-r", "--data", file)
        np.testing.assert_allclose(found["x"], values, rtol=1e-6)
        shown[name] = found["reconstruction"][place[name]]
    for name in ("one", "far"):
        np.testing.assert_allclose(codes[name], codes["all"], atol=1e-6)
        np.testing.assert_allclose(shown[name], shown["all"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_transform_is_that_of_the_training_rows(runs: dict[str, Path], scaling: str) -> None:
    """And the numbers that come out are those of the model in the units of the user."""
    stored = json.loads((runs[scaling] / "transform.json").read_text())
    x = np.loadtxt(runs[scaling].with_suffix(".csv"), delimiter=",", skiprows=1)
    order = np.random.default_rng(0).permutation(60)
    train = x[np.sort(order[12:])]
    expected = {
        "none": (0.0, 1.0),
        "unit": (train.min(), np.ptp(train)),
        "standardize": (train.mean(0), train.std(0)),
    }[scaling]
    np.testing.assert_allclose(stored["shift"], np.atleast_1d(expected[0]), rtol=1e-12)
    np.testing.assert_allclose(stored["divisor"], np.atleast_1d(expected[1]), rtol=1e-9)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_units_of_what_comes_out(probvae: Run, runs: dict[str, Path], scaling: str, tmp_path: Path) -> None:
    stored = json.loads((runs[scaling] / "transform.json").read_text())
    shift, divisor = np.array(stored["shift"]), np.array(stored["divisor"])
    vae = package.load(runs[scaling])
    drawn = result(probvae, "sample", runs[scaling], tmp_path / "s", "-n", "500")
    with torch.no_grad():
        mean = vae.model.decode(torch.from_numpy(drawn["z"])).double().numpy()
    np.testing.assert_allclose(drawn["mean"], mean * divisor + shift, rtol=1e-6, atol=1e-6)
    c = float(vae.model.likelihood.variance(torch.zeros(1, 3)).mean().detach())
    noise = ((drawn["x"] - drawn["mean"]) / divisor).var()
    assert noise == pytest.approx(c, rel=5 * (2 / 1500) ** 0.5)
    x = rows_for(scaling)
    file = write(tmp_path / "x.npy", x)
    found = result(probvae, "reconstruct", runs[scaling], tmp_path / "r", "--data", file)
    error = (((found["x"] - found["reconstruction"]) / divisor) ** 2).mean(1)
    np.testing.assert_allclose(found["squared_error"], error, rtol=1e-3, atol=1e-5)
    unit = {"none": "squared units of x", "unit": "scaled to [0, 1]", "standardize": "standard deviations"}[scaling]
    assert unit in probvae("reconstruct", runs[scaling], "--data", file, "--out", tmp_path / "r").stdout


@pytest.mark.parametrize("scaling", SCALINGS)
def test_missing_entries_are_filled_in_the_units_of_the_user(probvae: Run, scaling: str, tmp_path: Path) -> None:
    x = rows_for(scaling, seed=2)
    hidden = np.random.default_rng(0).random(x.shape) < 0.2
    gaps = np.where(hidden, np.nan, x)
    run = fitted(probvae, write(tmp_path / "x.csv", gaps), scaling, tmp_path / "run", "--missing", "mask")
    for number, source in enumerate(((), ("--data", write(tmp_path / "other.npy", gaps[:5])))):
        filled = result(probvae, "impute", run, tmp_path / f"out{number}", "-n", "20", *source)
        rows = slice(len(filled["mean"]))
        for name in ("mean", "lower", "upper"):
            np.testing.assert_allclose(filled[name][~hidden[rows]], x[rows][~hidden[rows]], rtol=1e-7)
        np.testing.assert_allclose(filled["draws"].mean(0), filled["mean"], rtol=1e-5, atol=5 * x.std())
        if scaling == "unit":
            continue  # one range for columns of different sizes leaves nothing of the small ones
        off = (np.abs(filled["mean"] - x[rows]) / np.nanstd(x, axis=0))[hidden[rows]]
        assert off.max() < 20  # in units of the data: a value of the model would be a million away from a time stamp


@pytest.mark.parametrize("command", ["gap", "reconstruct", "encode", "impute", "report", "compare"])
def test_no_command_takes_a_changed_file_for_its_own(probvae: Run, command: str, tmp_path: Path) -> None:
    data = write(tmp_path / "x.npy", table(0))
    run = fitted(probvae, data, "standardize", tmp_path / "run", "--missing", "mask")
    x = table(0)
    x[3, 1] *= 1 + 1e-12
    write(data, x)
    before = {path.name for path in run.iterdir()}
    done = probvae(command, run)
    assert done.returncode == 2
    assert "other values now than when it was fitted" in done.stderr
    assert "x.npy" in done.stderr
    assert {path.name for path in run.iterdir()} == before
    if command in ("encode", "impute"):
        named = (data,) if command == "encode" else ("--data", data)
        assert probvae(command, run, *named, "--out", tmp_path / "out").returncode == 0


def test_changed_labels_and_covariates_are_seen(probvae: Run, tmp_path: Path) -> None:
    data = write(tmp_path / "x.csv", table(0))
    run = fitted(probvae, data, "standardize", tmp_path / "run", "--condition", "a")
    x = table(0)
    x[3, 0] += 1
    write(data, x)
    done = probvae("encode", run, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "other values now" in done.stderr


@pytest.mark.parametrize("likelihood", ["continuous-bernoulli", "bernoulli"])
def test_held_out_rows_beyond_the_training_rows(probvae: Run, likelihood: str, tmp_path: Path) -> None:
    """One of four splits has the largest value among the held-out rows: that is no reason for a refusal."""
    x = np.random.default_rng(0).random((60, 3))
    held_out = np.random.default_rng(0).permutation(60)[:12]
    x[held_out[0], 0], x[held_out[1], 1] = 2.0, -1.0
    more = ("--likelihood", likelihood, *(("--binarization", "threshold") if likelihood == "bernoulli" else ()))
    run = fitted(probvae, write(tmp_path / "x.csv", x), "unit", tmp_path / "run", *more)
    done = probvae("encode", run, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "3 of 60 rows have values beyond those of the training rows" in done.stderr


def test_runs_with_other_training_rows_are_compared_in_the_units_of_the_user(probvae: Run, tmp_path: Path) -> None:
    """The same model in other units has the same density: log p(x) of both runs differs by the scalings' volumes."""
    data = write(tmp_path / "x.csv", table(0))
    first, second = (
        fitted(probvae, data, "standardize", tmp_path / name, "--set", f"training.seed={seed}")
        for seed, name in enumerate(("first", "second"))
    )
    done = probvae("compare", first, second, "--out", tmp_path / "c", "--no-figures", "--baseline", "first")
    assert done.returncode == 0, done.stderr
    entries = [read_entry(run) for run in (first, second)]
    divisors = [json.loads((run / "transform.json").read_text())["divisor"] for run in (first, second)]
    values = [entry.elbo.double().numpy() - np.log(d).sum() for entry, d in zip(entries, divisors, strict=True)]
    (other,) = [
        run for run in json.loads((tmp_path / "c" / "compare.json").read_text())["runs"] if run["name"] == "second"
    ]
    assert other["difference"]["elbo"]["value"] == pytest.approx(values[1].mean() - values[0].mean(), rel=1e-6)
    assert not other["same_held_out_data"]


def test_a_damaged_transform_is_refused(probvae: Run, tmp_path: Path) -> None:
    run = fitted(probvae, write(tmp_path / "x.csv", table(0)), "standardize", tmp_path / "run")
    for text in ("", "[]", "{}", '{"scaling": "unit", "shift": [0], "divisor": [0]}'):
        (run / "transform.json").write_text(text)
        done = probvae("encode", run)
        assert done.returncode == 2
        assert "transform.json" in done.stderr
    (run / "transform.json").unlink()
    assert probvae("encode", run).returncode == 2


OLDER = Path(__file__).parents[1] / "stored_runs" / "v1-scaled"


@pytest.mark.parametrize("scaling", ["standardize", "unit"])
def test_older_runs_are_scaled_as_on_their_day(probvae: Run, scaling: str, tmp_path: Path) -> None:
    """The fingerprint of the scaled values is in them, so the numbers agree bit for bit."""
    assert FORMAT > 1
    home = OLDER / scaling
    own = probvae("encode", "run", "--out", tmp_path / "own", cwd=home)
    assert own.returncode == 0, own.stderr
    lines = (home / "data.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join([lines[0], *lines[11:14]]) + "\n")
    few = probvae("encode", "run", tmp_path / "few.csv", "--out", tmp_path / "few", cwd=home)
    assert few.returncode == 0, few.stderr
    codes = [arrays_in(tmp_path / name / "codes.npz")["mean"] for name in ("own", "few")]
    np.testing.assert_allclose(codes[1], codes[0][10:13], atol=1e-6)
    for command in ("gap", "reconstruct", "sample", "report", "compare"):
        quick = ("--quick", "--num-data", "20", "--no-progress") if command == "report" else ()
        done = probvae(command, "run", *quick, "--out", tmp_path / command, cwd=home)
        assert done.returncode == 0, done.stderr
