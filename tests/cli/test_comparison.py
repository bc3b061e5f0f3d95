"""Runs beside each other: paired differences by hand, and what cannot be compared."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import probvae as package
from probvae.comparison import compare, paired, parse_sweep, read_entry
from probvae.errors import ConfigError, RunError
from probvae.experiment import load_recipe_data, split
from probvae.inference import exact_log_evidence, posterior_mean
from probvae.recipes import read_run_recipe

SMALL = ("training.epochs=2", "training.batch_size=32", "data.num_data=150")
LINEAR = ("model.decoder=linear", "inference.encoder=linear")
SETTINGS = [part for setting in (*SMALL, *LINEAR) for part in ("--set", setting)]
QUIET = ("--no-figures", "--no-progress", "--no-gap")


@pytest.fixture(scope="module")
def swept(probvae, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small fits of linear models, whose evidence has a closed form."""
    folder = tmp_path_factory.mktemp("sweep")
    axes = ("--sweep", "guide=diagonal,full-covariance", "variance=0.05,0.2")
    done = probvae("compare", *axes, *SETTINGS, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "difference to guide-" in done.stdout
    return folder


def held_out(run: Path) -> torch.Tensor:
    recipe = read_run_recipe(run)
    return torch.from_numpy(split(load_recipe_data(recipe), 0.2, 0)[1].x.copy())


def test_differences_are_those_of_the_exact_evidence(swept: Path) -> None:
    """Paired mean and standard error, recomputed from the saved weights with numpy."""
    content = json.loads((swept / "compare.json").read_text())
    values = {}
    for run in content["runs"]:
        vae = package.load(swept / run["name"])
        with torch.no_grad():
            values[run["name"]] = exact_log_evidence(vae.model, held_out(swept / run["name"])).double().numpy()
    base = values[content["baseline"]]
    compared = [run for run in content["runs"] if run["name"] != content["baseline"]]
    assert len(compared) == 3
    for run in compared:
        delta = values[run["name"]] - base
        got = run["difference"]["evidence"]
        assert got["value"] == pytest.approx(delta.mean(), abs=1e-5)
        assert got["standard_error"] == pytest.approx(delta.std(ddof=1) / np.sqrt(len(delta)), rel=1e-4)
        assert got["num_data"] == len(delta) == 30
        unpaired = np.hypot(base.std(ddof=1), values[run["name"]].std(ddof=1)) / np.sqrt(len(delta))
        assert run["changed"]["model.likelihood.variance"] != 0.2 or got["standard_error"] < unpaired


def test_pictures_and_numbers_of_a_sweep(swept: Path) -> None:
    content = json.loads((swept / "compare.json").read_text())
    for name in ("differences.png", "rate-distortion.svg"):
        assert (swept / name).stat().st_size > 5000
    for run in content["runs"]:
        gap = run["gap"]
        assert gap["total"]["value"] == pytest.approx(gap["approximation"]["value"] + gap["amortisation"]["value"])
        vae = package.load(swept / run["name"])
        variances = posterior_mean(vae, held_out(swept / run["name"])).numpy().var(0, ddof=1)
        assert run["active_units"] == (variances > 0.01).sum()


def test_finished_runs_are_not_fitted_again(probvae, swept: Path) -> None:
    first = swept / "guide-diagonal_variance-0.05" / "model.safetensors"
    before = first.stat().st_mtime_ns
    done = probvae("compare", "--sweep", "guide=diagonal", "variance=0.05", *SETTINGS, "--out", swept, "--json")
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == before
    assert len(json.loads(done.stdout)["runs"]) == 1


def test_a_fit_that_fails_is_listed(probvae, swept: Path, tmp_path: Path) -> None:
    sweep = ("--sweep", "prior=standard-normal,no-such")
    done = probvae("compare", *sweep, *SETTINGS, "--out", tmp_path / "c", "--no-figures")
    assert done.returncode == 0, done.stderr
    assert "prior-no-such failed: unknown prior 'no-such'" in done.stderr.replace("\n", " ")
    nothing = probvae("compare", "--sweep", "prior=no-such", *SETTINGS, "--out", tmp_path / "d")
    assert nothing.returncode == 2
    assert "expected at least one finished run" in nothing.stderr


def test_other_held_out_data_are_not_paired(probvae, swept: Path, tmp_path: Path) -> None:
    done = probvae("fit", *SETTINGS, "--seed", "5", "--out", tmp_path / "other", *QUIET)
    assert done.returncode == 0, done.stderr
    first = swept / "guide-diagonal_variance-0.05"
    done = probvae("compare", first, tmp_path / "other", "--baseline", first.name, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "cannot be paired" in done.stderr
    runs = json.loads((tmp_path / "out" / "compare.json").read_text())["runs"]
    assert [run["same_held_out_data"] for run in runs] == [True, False]
    assert runs[1]["difference"] == {"elbo": None, "evidence": None}


def test_mistakes(probvae, swept: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("compare",), "give run folders, or --sweep"),
        (("compare", tmp_path), "there is no config.toml in it"),
        (("compare", "--sweep", "prior"), "expected NAME=VALUE"),
        (("compare", swept / "guide-diagonal_variance-0.05", "--baseline", "x"), "baseline: expected one of"),
    ):
        done = probvae(*arguments, "--out", tmp_path / "out")
        assert done.returncode == 2, arguments
        assert message in done.stderr.replace("\n", " ")
    with pytest.raises(RunError, match="no config"):
        read_entry(tmp_path)
    with pytest.raises(ConfigError, match="at least one finished run"):
        compare([])


def test_paired_by_hand() -> None:
    difference = paired(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 2.5, 6.0]))
    assert difference.value == pytest.approx(3.5 / 3)
    assert difference.standard_error == pytest.approx(np.std([1.0, 0.5, 2.0], ddof=1) / 3**0.5)
    assert paired(torch.ones(3), None) is None
    assert paired(torch.ones(3), torch.ones(4)) is None


def test_axes_of_a_sweep() -> None:
    keys = {"prior": "model.prior.name", "latent_dim": "model.latent_dim"}
    axes = parse_sweep(["prior=a,b", "latent-dim=2,3", "model.prior.num_components=5"], keys)
    assert axes == {"model.prior.name": ["a", "b"], "model.latent_dim": [2, 3], "model.prior.num_components": [5]}
