"""`probvae fit`, as a user runs it."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import probvae as package
from probvae.experiments.recipe import DEFAULT, read_recipe, resolve

ROOT = Path(__file__).parents[2]


def test_run_folder_holds_what_the_design_says(small_run: Path) -> None:
    files = {file.relative_to(small_run).as_posix() for file in small_run.rglob("*") if file.is_file()}
    assert {
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "model.safetensors",
        "summary.json",
        "checkpoints/epoch-000002.safetensors",
        "figures/learning-curve.png",
        "figures/latent-plane.svg",
        "figures/reconstructions.png",
        "figures/samples.png",
        "figures/decoded-grid.png",
        "figures/posteriors.png",
    } <= files
    assert [file for file in files if file.split("/")[-1].startswith(".")] == [".lock"], "a temporary file was left"
    metrics = [json.loads(line) for line in (small_run / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in metrics] == [1, 2]


def test_summary_is_the_bound_of_the_saved_model_on_the_held_out_data(small_run: Path) -> None:
    from probvae.experiments.recipe import read_run_recipe
    from probvae.experiments.recipe_data import as_tensor, load_recipe_data, split
    from probvae.inference import log_weights

    summary = json.loads((small_run / "summary.json").read_text())
    recipe = read_run_recipe(small_run)
    held_out = split(load_recipe_data(recipe), 0.2, 0)[1]
    torch.manual_seed(3)
    vae, x = package.load(small_run), as_tensor(held_out)
    again = package.elbo(vae, x, num_samples=64)
    with torch.no_grad():
        spread = log_weights(vae.model, vae.guide, x, 64).log_weight.std(0)
    # The summary has 32 draws of each datum, this test 64 others.
    noise = (spread.square().sum() * (1 / 32 + 1 / 64)).sqrt().item() / len(x)
    assert len(again) == summary["num_held_out"] == 359
    error = summary["elbo"]["standard_error"]
    assert again.mean().item() == pytest.approx(summary["elbo"]["value"], abs=5 * noise)
    assert again.std().item() / 359**0.5 == pytest.approx(error, rel=0.05)
    assert summary["elbo"]["value"] == pytest.approx(
        summary["log_likelihood"]["value"] - summary["kl"]["value"], abs=1e-6
    )
    assert summary["squared_error_weight"] == pytest.approx(1 / (2 * summary["variance"]))


def test_time_of_fit_evaluation_and_ledger_are_told_apart(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from probvae.cli.output import print_summary

    summary = json.loads((small_run / "summary.json").read_text())
    parts = [summary[f"{part}_seconds"] for part in ("fit", "evaluation", "ledger")]
    assert all(seconds > 0 for seconds in parts)
    assert sum(parts) < summary["seconds"]
    print_summary(summary)
    told = capsys.readouterr().out
    for name, seconds in zip((f"fit, {summary['epochs']} epochs", "evaluation", "ledger of gaps"), parts, strict=True):
        assert f"{seconds:.1f}" in next(line for line in told.splitlines() if f"time of the {name}" in line)
    assert "posterior gap on the first 150 of 359 data" in told
    assert summary["gap"]["num_there"] == summary["num_held_out"]


def test_config_reproduces_the_run_bit_for_bit(probvae, small_run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    done = probvae("fit", small_run / "config.toml", "--out", again, "--no-figures", "--no-progress", "--json")
    assert done.returncode == 0, done.stderr
    first, second = package.load(small_run).state_dict(), package.load(again).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads(done.stdout) == json.loads((again / "summary.json").read_text())
    assert (again / "config.toml").read_text() == (small_run / "config.toml").read_text()


def test_table_shows_the_numbers(probvae, tmp_path: Path) -> None:
    options = (
        "--data",
        "iris",
        "--epochs",
        "3",
        "--batch-size",
        "32",
        "--variance",
        "0.25",
        "--guide",
        "full-covariance",
        "--no-gap",
    )
    done = probvae("fit", *options, "--out", tmp_path / "iris", "--hidden", "8", "--latent-dim", "3")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "iris" / "summary.json").read_text())
    for number in (summary["elbo"]["value"], summary["kl"]["value"], summary["reconstruction_error"]["value"]):
        assert f"{number:.4f}" in done.stdout
    assert "0.25" in done.stdout
    assert " 2 " in done.stdout  # C = 1/(2c)
    assert "epoch 3/3" in done.stderr  # progress goes to stderr, as lines when it is no terminal
    config = tomllib.loads((tmp_path / "iris" / "config.toml").read_text())
    assert config["inference"]["guide"] == {"name": "full-covariance"}
    assert config["model"]["likelihood"] == {"name": "gaussian", "variance": 0.25}


def test_ledger_of_the_summary(small_run: Path) -> None:
    """The three numbers are those of the public function on the first held-out data, and they add up."""
    from probvae.diagnostics import posterior_gap
    from probvae.experiments.recipe import read_run_recipe
    from probvae.experiments.recipe_data import as_tensor, load_recipe_data, split

    gap = json.loads((small_run / "summary.json").read_text())["gap"]
    assert (gap["truth"], gap["kind"], gap["num_data"]) == ("quadrature", "exact", 150)
    total, parts = gap["total"]["value"], gap["approximation"]["value"] + gap["amortisation"]["value"]
    assert total == pytest.approx(parts, abs=1e-9)
    held_out = as_tensor(split(load_recipe_data(read_run_recipe(small_run)), 0.2, 0)[1])
    result = posterior_gap(package.load(small_run), held_out[:150])
    assert result.total.mean()["value"] == pytest.approx(total, abs=1e-3)


def test_recipes_merge_from_left_to_right(probvae, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[model]\nlatent_dim = 3\nlikelihood = { name = "gaussian", variance = 0.5 }\n')
    (tmp_path / "b.toml").write_text("[model]\nlatent_dim = 4\n[training]\nepochs = 1\n")
    settings = ("--set", "model.decoder.hidden=[7]", "--set", "training.batch_size=64")
    done = probvae("fit", "a.toml", "b.toml", *settings, "--out", "run", "--no-figures", "--no-gap", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    vae = package.load(tmp_path / "run")
    assert vae.model.latent_dim == 4
    assert vae.model.decoder.network[0].out_features == 7
    assert vae.model.likelihood.fixed_variance.item() == 0.5


COUNTS = ("--scaling", "none")
LIKELIHOODS = {
    "poisson": (*COUNTS,),
    "negative-binomial": (*COUNTS, "--set", "model.likelihood.dispersion=per-dimension"),
    "categorical": (*COUNTS, "--set", "model.likelihood.num_categories=17"),
    "student-t": ("--set", "model.likelihood.degrees=3.0"),
    "laplace": (),
    "discretized-logistic": ("--set", "model.likelihood.num_levels=17"),
    "mixed": (*COUNTS,),
}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_likelihood_fits_the_digits(probvae, tmp_path: Path, likelihood: str) -> None:
    options = ("--epochs", "2", "--hidden", "8", "--no-gap", "--no-progress", "--out", tmp_path / "run")
    done = probvae("fit", "--likelihood", likelihood, *LIKELIHOODS[likelihood], *options)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert np.isfinite(summary["elbo"]["value"])
    point = package.load(tmp_path / "run").model.likelihood.point_name.replace("|z", "|z = E_q z")
    assert f"mean squared error of {point}" in done.stdout
    for name in summary["likelihood"]:
        assert f"{name} of the likelihood" in done.stdout
    assert {file.stem for file in (tmp_path / "run" / "figures").glob("*.png")} >= {"samples", "reconstructions"}


def test_held_out_data_are_checked_before_the_fit(probvae, tmp_path: Path) -> None:
    """One row of 40 is no count, and it is held out."""
    x = np.random.default_rng(0).poisson(3.0, size=(40, 2)).astype(np.float32)
    held_out = np.sort(np.random.default_rng(0).permutation(40)[:8])[0]
    x[held_out, 1] = 0.5
    np.save(tmp_path / "counts.npy", x)
    options = ("--likelihood", "poisson", "--batch-size", "16", "--no-progress", "--out", "run")
    done = probvae("fit", "--data", "counts.npy", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert f"got 0.5 (row {held_out}, column 1" in done.stderr
    assert not (tmp_path / "run").exists()


def test_file_of_the_user(probvae, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3))
    lines = ["a,b,c,kind", *(",".join(f"{v:.6f}" for v in row) + f",k{i % 2}" for i, row in enumerate(rows))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    options = ("--labels", "kind", "--scaling", "standardize", "--epochs", "2", "--batch-size", "50")
    done = probvae("fit", "--data", "table.csv", *options, "--hidden", "8", "--no-gap", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "table-001" / "figures" / "samples.png").stat().st_size > 1000


@pytest.mark.parametrize("recipe", sorted([*ROOT.glob("models/*.toml"), *ROOT.glob("inference/*.toml")]), ids=str)
def test_shipped_recipes_build(recipe: Path) -> None:
    from probvae.experiments.build import build_objective, build_vae

    resolved = resolve([read_recipe(recipe)])
    vae = build_vae(resolved, data_dim=9, data_variance=1.0)
    assert vae(torch.zeros(2, 9)).mean.shape == (2, resolved["model"]["latent_dim"])
    assert build_objective(resolved).num_particles == 1


def test_shipped_rocca_recipe_is_the_default() -> None:
    recipe = resolve([read_recipe(ROOT / "models/rocca.toml"), read_recipe(ROOT / "inference/diagonal.toml")])
    from probvae.experiments.build import build_vae

    ours = build_vae(recipe, 5, 1.0).state_dict()
    default = build_vae(resolve([]), 5, 1.0).state_dict()
    assert all(torch.equal(ours[name], default[name]) for name in default)
    assert resolve([]) == DEFAULT


MISTAKES = {
    "unknown prior": (["--prior", "standart-normal"], "Did you mean 'standard-normal'?"),
    "unknown guide": (["--guide", "fullcovariance"], "Did you mean 'full-covariance'?"),
    "unknown data": (["--data", "digit"], "Did you mean 'digits'?"),
    "no file": (["--data", "nothing.npy"], "nothing.npy"),
    "unknown key": (["--set", "training.epoch=3"], "Did you mean 'training.epochs'?"),
    "unknown table": (["--set", "modle.latent_dim=3"], "Did you mean 'model'?"),
    "malformed set": (["--set", "epochs"], "table.key=value"),
    "unknown option of a component": (["--set", "model.prior.num_component=3"], "num_component"),
    "option of another component": (["--likelihood", "bernoulli", "--variance", "0.1"], "variance"),
    "latent_dim": (["--latent-dim", "0"], "--latent-dim: expected an integer >= 1, got 0"),
    "variance zero": (["--variance", "0"], "--variance: expected a finite number > 0, got 0"),
    "variance negative": (["--variance=-1"], "--variance: expected a finite number > 0, got -1"),
    "variance word": (["--variance", "learnt"], "Did you mean 'learned'?"),
    "epochs": (["--epochs", "0"], "--epochs"),
    "skipped steps": (["--set", "training.max_skipped_steps=-1"], "--max-skipped-steps: expected an integer >= 0"),
    "learning rate": (["--learning-rate", "nan"], "--learning-rate"),
    "schedule": (["--schedule", "cosin"], "Did you mean 'cosine'?"),
    "batch": (["--batch-size", "0"], "--batch-size"),
    "grey": (["--likelihood", "bernoulli"], "continuous-bernoulli"),
    "hidden": (["--hidden", "8,x"], "--hidden"),
    "device": (["--device", "warp"], "--device"),
    "recipe": (["nothing.toml"], "nothing.toml"),
    "option": (["--epoch-s", "3"], "--epoch-s"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_end_in_a_message_and_leave_nothing(probvae, tmp_path: Path, case: str) -> None:
    arguments, message = MISTAKES[case]
    done = probvae("fit", *arguments, "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("most", "code"), [("10", 0), ("0", 1)])
def test_steps_that_cannot_be_taken(probvae, tmp_path: Path, most: str, code: int) -> None:
    """One datum is so far away that its loss at this c is beyond float32."""
    x = np.random.default_rng(0).normal(size=(300, 4))
    x[100, 1] = 1e15
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header="a,b,c,d", comments="")
    options = ("--variance", "1e-10", "--epochs", "2", "--no-figures", "--no-gap", "--scaling", "none")
    most = ("--set", f"training.max_skipped_steps={most}")
    done = probvae("fit", "--data", tmp_path / "x.csv", *options, *most, "--out", tmp_path / "run")
    assert done.returncode == code, done.stderr
    told = "2 of 4 steps were skipped, the first at site 'x', epoch 1" if code == 0 else "probvae: site 'x', epoch 1"
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_existing_folder_is_left_as_it_is(probvae, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    done = probvae("fit", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "exists" in done.stderr
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_folder_that_cannot_be_written(probvae, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = probvae("fit", "--epochs", "1", "--out", tmp_path / "file" / "run")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_diverging_fit_says_where_and_keeps_the_last_good_state(probvae, tmp_path: Path) -> None:
    options = ("--learning-rate", "1e30", "--schedule", "constant", "--hidden", "8", "--no-progress")
    done = probvae("fit", *options, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in ("site", "epoch 1", "batch", "--learning-rate"):
        assert word in done.stderr
    assert all(tensor.isfinite().all() for tensor in package.load(tmp_path / "run").state_dict().values())


@pytest.mark.usefixtures("undrawn", "unrefined")
def test_pictures_of_data_that_are_binarised_at_every_use(probvae, tmp_path: Path) -> None:
    options = ("--likelihood", "bernoulli", "--binarization", "fresh", "--num-data", "200", "--batch-size", "64")
    done = probvae("fit", "--out", tmp_path / "run", "--epochs", "1", "--no-progress", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "figures" / "posteriors.svg").is_file()
