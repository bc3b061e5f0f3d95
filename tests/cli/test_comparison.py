"""Runs beside each other: paired differences by hand, and what cannot be compared."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import probvae as package
from probvae.errors import ConfigError, DataError, FloorWarning, RunError
from probvae.experiments.compare import compare, differing, paired, read_entry, unpaired
from probvae.experiments.recipe import read_run_recipe, resolve
from probvae.experiments.recipe_data import load_recipe_data, split
from probvae.experiments.sweep import parse_sweep, run_sweep
from probvae.inference import diagonal_gap, exact_log_evidence, posterior_mean, posterior_precision
from probvae.inference.training.checkpoints import newest_checkpoint
from probvae.models import Likelihood

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
    assert "difference to variance=0." in done.stdout
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
            x = held_out(swept / run["name"]).double()
            values[run["name"]] = exact_log_evidence(vae.double().model, x).numpy()  # as the ledger computes it
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
        summary = json.loads((swept / run["name"] / "summary.json").read_text())
        assert 0 < run["seconds"] == summary["fit_seconds"] < summary["seconds"]


@pytest.mark.usefixtures("undrawn")
def test_run_of_a_sweep_that_was_stopped_goes_on(probvae, swept: Path, tmp_path: Path) -> None:
    shutil.copytree(swept, tmp_path / "sweep")
    stopped = tmp_path / "sweep" / "guide-diagonal_variance-0.05"
    for name in ("summary.json", "model.safetensors", f"checkpoints/{newest_checkpoint(stopped / 'checkpoints').name}"):
        (stopped / name).unlink()
    options = ("guide=diagonal", "variance=0.05", *SETTINGS, "--out", tmp_path / "sweep", "--json")
    done = probvae("compare", "--sweep", *options)
    assert done.returncode == 0, done.stderr
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (stopped / name).read_bytes() == (swept / stopped.name / name).read_bytes()


@pytest.mark.usefixtures("undrawn", "unrefined")
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


@pytest.mark.usefixtures("undrawn", "unrefined")
def test_other_held_out_data_are_not_paired(probvae, swept: Path, tmp_path: Path) -> None:
    done = probvae("fit", *SETTINGS, "--seed", "5", "--out", tmp_path / "other", *QUIET)
    assert done.returncode == 0, done.stderr
    first = swept / "guide-diagonal_variance-0.05"
    done = probvae("compare", first, tmp_path / "other", "--baseline", first.name, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "seed=5: other held-out data than the baseline's" in done.stderr.replace("\n", " ")
    assert "~ " in done.stdout
    runs = json.loads((tmp_path / "out" / "compare.json").read_text())["runs"]
    assert [run["same_held_out_data"] for run in runs] == [True, False]
    difference = runs[1]["difference"]["elbo"]
    assert difference["paired"] is False
    assert difference["value"] == pytest.approx(runs[1]["elbo"]["value"] - runs[0]["elbo"]["value"], abs=1e-6)
    errors = [run["elbo"]["standard_error"] for run in runs]
    assert difference["standard_error"] == pytest.approx(np.hypot(*errors), rel=1e-6)


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
    assert paired(torch.ones(1), torch.ones(1)).standard_error is None
    # log p(x) that costs more is computed on the first data only: these are the ones that both have
    assert paired(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 2.5])) == paired(
        torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.5])
    )


def test_unpaired_by_hand() -> None:
    first, second = torch.randn(30), torch.randn(20) + 0.5
    difference = unpaired(first, second)
    assert difference.value == pytest.approx((second.mean() - first.mean()).item(), abs=1e-6)
    variance = first.numpy().var(ddof=1) / 30 + second.numpy().var(ddof=1) / 20
    assert difference.standard_error == pytest.approx(variance**0.5, rel=1e-5)


def test_axes_of_a_sweep() -> None:
    lists = parse_sweep(["hidden=16,[32, 32]", "model.decoder.channels=[4,8],[16]"], {"hidden": "hidden"})
    assert lists == {"hidden": [16, [32, 32]], "model.decoder.channels": [[4, 8], [16]]}
    with pytest.raises(ConfigError, match="prior is there twice"):
        parse_sweep(["prior=a", "prior=b"], {"prior": "model.prior.name"})
    keys = {"prior": "model.prior.name", "latent_dim": "model.latent_dim"}
    axes = parse_sweep(["prior=a,b", "latent-dim=2,3", "model.prior.num_components=5"], keys)
    assert axes == {"model.prior.name": ["a", "b"], "model.latent_dim": [2, 3], "model.prior.num_components": [5]}


def test_a_finished_run_of_another_recipe_is_not_taken(probvae, swept: Path) -> None:
    """What lies there was fitted for two epochs: it is no answer to a question about three."""
    sweep = ("--sweep", "guide=diagonal", "variance=0.05", *SETTINGS, "--set", "training.epochs=3", "--out", swept)
    done = probvae("compare", *sweep)
    assert done.returncode == 2
    assert "holds a run with training.epochs=2, and 3 is asked for" in done.stderr.replace("\n", " ")


@pytest.mark.usefixtures("unrefined")
def test_options_of_fit_hold_for_a_sweep(probvae, tmp_path: Path) -> None:
    options = ("--data", "wine", "--epochs", "1", "--batch-size", "32", "--latent-dim", "1")
    done = probvae("compare", "--sweep", "hidden=4,[6,5]", *options, "--no-figures", "--out", tmp_path / "c", "--json")
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [run["label"] for run in runs] == ["hidden=[4]", "hidden=[6, 5]"]
    for run, widths in zip(runs, ([4], [6, 5]), strict=True):
        recipe = read_run_recipe(tmp_path / "c" / run["name"])
        assert recipe["model"]["decoder"]["hidden"] == recipe["inference"]["encoder"]["hidden"] == widths
        assert (recipe["training"]["epochs"], recipe["model"]["latent_dim"]) == (1, 1)
    refused = probvae("compare", tmp_path / "c" / runs[0]["name"], "--epochs", "3")
    assert refused.returncode == 2
    assert "settings are for fits" in refused.stderr


def test_wrong_keys_are_found_before_the_first_fit(probvae, tmp_path: Path) -> None:
    for axis, message in (("training.epoch=1,2", "training.epochs"), ("latent_dim=2,x", "expected int, got 'x'")):
        done = probvae("compare", "--sweep", axis, *SETTINGS, "--out", tmp_path / "c")
        assert done.returncode == 2
        assert message in done.stderr
        assert not (tmp_path / "c").exists()


def test_different_data_are_refused(probvae, swept: Path, tmp_path: Path) -> None:
    entry = read_entry(swept / "guide-diagonal_variance-0.05")
    quick = ("--epochs", "1", "--batch-size", "16", "--decoder", "linear", "--encoder", "linear", *QUIET)
    for name, data, message in (
        ("wine", ("--data", "wine"), "has 13 columns, guide-diagonal_variance-0.05 64"),
        ("scaled", ("--num-data", "150", "--scaling", "none"), "has data.scaling='none', guide-diagonal"),
    ):
        done = probvae("fit", *data, *quick, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        with pytest.raises(DataError, match=message):
            compare([entry, read_entry(tmp_path / name)])


def test_data_that_have_changed_since_the_fit_are_refused(probvae, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 3)))
    options = ("--data", tmp_path / "x.npy", "--epochs", "1", "--batch-size", "16", "--hidden", "4")
    done = probvae("fit", *options, *QUIET, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(60, 3)))
    with pytest.raises(RunError, match="other values now than when it was fitted"):
        read_entry(tmp_path / "run")


@pytest.mark.usefixtures("undrawn", "unrefined")
def test_densities_are_not_compared_with_probabilities(probvae, tmp_path: Path) -> None:
    """A density of binary data rises without limit as c falls; a probability does not."""
    options = ("--binarization", "fixed", "--epochs", "1", "--hidden", "4", "--num-data", "150", "--batch-size", "32")
    options += ("--latent-dim", "1")
    sweep = ("--sweep", "likelihood=gaussian,bernoulli,continuous-bernoulli")
    done = probvae("compare", *sweep, *options, "--out", tmp_path / "c", "--baseline", "likelihood-gaussian")
    assert done.returncode == 0, done.stderr
    assert "bernoulli (probability): log p(x) is of another kind" in done.stderr.replace("\n", " ")
    runs = {run["label"]: run for run in json.loads((tmp_path / "c" / "compare.json").read_text())["runs"]}
    assert runs["bernoulli"]["difference"] == {"elbo": None, "evidence": None}
    assert runs["continuous-bernoulli"]["difference"]["elbo"]["paired"]


@pytest.mark.usefixtures("undrawn", "unrefined")
def test_runs_of_one_name_are_told_apart(probvae, swept: Path, tmp_path: Path) -> None:
    for part, source in (("a", "guide-diagonal_variance-0.05"), ("b", "guide-diagonal_variance-0.2")):
        shutil.copytree(swept / source, tmp_path / part / "run")
    done = probvae("compare", "a/run", "b/run", "--baseline", "b/run", "--json", "--out", "c", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert [run["name"] for run in content["runs"]] == ["a/run", "b/run"]
    assert [run["label"] for run in content["runs"]] == ["variance=0.05", "variance=0.2"]
    assert content["baseline"] == "b/run"
    assert (tmp_path / "c" / "rate-distortion.png").is_file()  # c differs, whoever fitted the runs
    twice = probvae("compare", "a/run", "a/run", cwd=tmp_path)
    assert twice.returncode == 2
    assert "expected every run once" in twice.stderr


@pytest.mark.usefixtures("unrefined")
def test_evidence_on_fewer_data_is_paired_with_the_first_of_them(probvae, tmp_path: Path) -> None:
    """Quadrature on all 80 held-out data, annealing on 50: the difference is over the 50 that both have."""
    options = (
        "--data",
        "breast-cancer",
        "--epochs",
        "1",
        "--num-data",
        "400",
        "--hidden",
        "4",
        "--no-figures",
        "--json",
    )
    done = probvae("compare", "--sweep", "latent_dim=1,3", *options, "--out", tmp_path / "c")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert [run["evidence"]["num_data"] for run in content["runs"]] == [80, 50]
    assert [run["evidence"]["kind"] for run in content["runs"]] == ["exact", "lower bound"]
    (other,) = (run for run in content["runs"] if run["name"] != content["baseline"])
    assert (other["difference"]["elbo"]["num_data"], other["difference"]["evidence"]["num_data"]) == (80, 50)


def test_a_guide_that_is_not_amortised_is_compared_by_its_best_members(probvae, tmp_path: Path) -> None:
    options = ("--data", "wine", "--epochs", "1", "--batch-size", "32", "--decoder", "linear")
    sweep = ("--sweep", "guide=diagonal,free", *options, "--no-figures", "--json", "--out", tmp_path / "c")
    done = probvae("compare", *sweep)
    assert done.returncode == 0, done.stderr
    runs = {run["label"]: run for run in json.loads(done.stdout)["runs"]}
    assert set(runs) == {"diagonal", "free"}
    vae = package.load(tmp_path / "c" / "guide-free")
    lost = diagonal_gap(posterior_precision(vae.model).double()).item()  # what any diagonal guide loses
    assert runs["free"]["gap"]["approximation"]["value"] == pytest.approx(lost, abs=1e-6)
    assert runs["free"]["gap"]["amortisation"]["value"] == pytest.approx(0, abs=2e-3)  # where the search may stop
    assert runs["diagonal"]["gap"]["amortisation"]["value"] > 0.01


def test_a_sweep_goes_on_past_any_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A component of somebody else's may raise anything, and its warnings say whose they are."""

    def failing(recipe, folder, **options):
        warnings.warn("the floor", FloorWarning, stacklevel=1)
        raise ZeroDivisionError("in a plug-in")

    monkeypatch.setattr("probvae.experiments.sweep.run_recipe", failing)
    seen = []
    with pytest.warns(FloorWarning, match="seed-[12]: the floor"):
        entries, failures = run_sweep(
            resolve([]),
            {"training.seed": [1, 2]},
            tmp_path,
            lambda key, value: {"training": {"seed": value}},
            lambda *told: seen.append(told),
        )
    assert entries == []
    assert failures == {"seed-1": "ZeroDivisionError: in a plug-in", "seed-2": "ZeroDivisionError: in a plug-in"}
    assert seen == [("seed-1", 1, 2), ("seed-2", 2, 2)]


def test_what_differs_between_recipes() -> None:
    first = {"model": {"prior": {"name": "mixture", "num_components": 3}, "latent_dim": 2}}
    second = {"model": {"prior": {"name": "standard-normal"}, "latent_dim": 2}}
    assert differing([first, second]) == [
        {"model.prior.name": "mixture", "model.prior.num_components": 3},
        {"model.prior.name": "standard-normal", "model.prior.num_components": None},
    ]
    assert differing([first, first]) == [{}, {}]


@pytest.mark.parametrize("name", sorted(Likelihood.registry))
def test_a_probability_is_at_most_one(name: str) -> None:
    """What a likelihood says of itself, against its numbers: the same z under a finer and finer noise."""
    likelihood = Likelihood.registry[name].example()
    assert likelihood.measure.split(" ")[0] in ("density", "probability")
    p = likelihood(3 * torch.randn(200, likelihood.num_outputs))
    if likelihood.measure == "probability":
        assert (p.log_prob(p.sample()) <= 0).all()


def test_sweep_over_seeds_says_how_much_fits_differ(probvae, tmp_path: Path) -> None:
    sweep = ("--sweep", "training.seed=0,1", "--sweep", "guide=diagonal,full-covariance")
    done = probvae("compare", *sweep, *SETTINGS, "--out", tmp_path / "c", "--no-figures")
    assert done.returncode == 0, done.stderr
    assert "Their errors include the variance between seeds" in " ".join(done.stdout.split())
    content = json.loads((tmp_path / "c" / "compare.json").read_text())
    first, second = content["over_seeds"]
    assert (first["label"], second["label"]) == ("diagonal", "full-covariance")
    assert first["seeds"] == second["seeds"] == [0, 1]
    values = [run["elbo"]["value"] for run in content["runs"] if run["name"] in first["runs"]]
    assert first["elbo"]["between_seeds"] == pytest.approx(np.std(values, ddof=1), rel=1e-6)
    assert first["elbo"]["standard_error"] > first["elbo"]["between_seeds"] / np.sqrt(2)
    assert {"elbo", "evidence"} == (first["difference"] or second["difference"]).keys()
