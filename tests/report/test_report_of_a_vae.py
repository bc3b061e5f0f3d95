"""``probvae.report``: a report of any VAE, written by hand, as a Pyro program, or for known covariates."""

import inspect
import json
import pydoc
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import arviz
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

import probvae
from probvae.errors import ArgumentError, DataError, RunError, ShapeError
from probvae.inference import DiagonalGuide, MLPEncoder
from probvae.models import GaussianLikelihood, LabelCovariates, LatentModel, MLPDecoder, StandardNormalPrior
from probvae.report.build_report import Report
from tests.support.browser import measure, needs_browser, screenshot

NUM_ROWS = 25
WEIGHT = torch.tensor([[1.0, 0.5, -1.0]])


def of_digits(folder: Path) -> Report:
    data = probvae.load_data("digits")
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, 64, hidden=(8,)), GaussianLikelihood(64, 0.1))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(64, hidden=(8,)), 2))
    x = torch.from_numpy(data.x[:40])
    labels = [f"digit {label}" for label in data.labels[:40]]
    return probvae.report(vae, x, folder, labels=labels, image_shape=(8, 8), quick=True, num_data=NUM_ROWS)


def model(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        code = pyro.sample("code", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("obs", dist.Normal(code.unsqueeze(-1) @ WEIGHT, 1.0).to_event(1), obs=x)


def guide(x: Tensor) -> None:
    precision = 1 + float(WEIGHT.square().sum())
    with pyro.plate("rows", len(x)):
        pyro.sample("code", dist.Normal((x @ WEIGHT.T)[:, 0] / precision, precision**-0.5))


def of_a_program(folder: Path) -> Report:
    x = torch.randn(NUM_ROWS, 1) @ WEIGHT + torch.randn(NUM_ROWS, 3)
    vae = probvae.program_vae(model, guide, x)
    return probvae.report(vae, x, folder, feature_names=["a", "b", "c"], quick=True)


def of_covariates(folder: Path) -> Report:
    covariates = LabelCovariates(["cat", "cow"])
    parts = MLPDecoder(3, 2, hidden=(4,)), GaussianLikelihood(2, 0.1)
    model = LatentModel(StandardNormalPrior(1), *parts, covariates)
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(4, hidden=(4,)), 1))
    y = ["cat", "cow", "cow"] * 10
    return probvae.report(vae.given(y), torch.randn(30, 2), str(folder), labels=y, quick=True, num_data=NUM_ROWS)


REPORTS: dict[str, Callable[[Path], Report]] = {
    "digits": of_digits,
    "program": of_a_program,
    "covariates": of_covariates,
}
SUBJECTS = {
    "digits": "the first 25 of 40 data, 64 features, 2 latents",
    "program": "25 data, 3 features, 1 latent",
    "covariates": "the first 25 of 30 data, 2 features, 1 latent",
}


@pytest.fixture(scope="session", params=REPORTS)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    diagnose = sys.modules["probvae.diagnostics.diagnose"]
    few = replace(diagnose._QUICK, num_simulations=100, num_draws=100, num_ranks=30, num_replicates=50)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnose, "_QUICK", few)  # it is the files that are looked at here, not the numbers
        return REPORTS[request.param](tmp_path_factory.mktemp("reports") / request.param)


def test_files_belong_together(report: Report) -> None:
    content = json.loads((report.folder / "report.json").read_text())
    html = (report.folder / "report.html").read_text(encoding="utf-8")
    assert [file.name for file in report.files] == ["report.html", "report.json", "posterior.nc"]
    assert all(file.is_file() for file in report.files)
    assert content["answer"] in html
    assert content["subject"] == report.subject == SUBJECTS[report.folder.name]
    assert content["title"] == f"Posterior report: {report.folder.name}"
    assert content["about"]["Made by"] == "probvae.report"
    assert content["status"] == report.diagnosis.status
    assert html.count("<figure>") == len(content["figures"]) == report.num_figures
    names = {figure["name"] for figure in content["figures"]}
    assert names >= {"ledger", "pareto-k", "samples", "reconstructions", "latent-plane", "posteriors"}
    assert ("least-and-most-probable" in names) == (report.folder.name == "digits")
    assert all((report.folder / file).is_file() for figure in content["figures"] for file in figure["files"])


def test_draws_have_the_names_of_rows_and_columns(report: Report) -> None:
    draws = arviz.from_netcdf(report.folder / "posterior.nc")
    latents, features = {"digits": (2, 64), "program": (1, 3), "covariates": (1, 2)}[report.folder.name]
    assert dict(draws["posterior"]["z"].sizes) == {"chain": 1, "draw": 100, "datum": NUM_ROWS, "latent": latents}
    assert draws["observed_data"]["x"].shape == (NUM_ROWS, features)
    if report.folder.name == "program":
        assert list(draws["observed_data"]["feature"].values) == ["a", "b", "c"]
    elif report.folder.name == "covariates":
        assert list(draws["posterior"]["label"].values[:3]) == ["cat", "cow", "cow"]


@needs_browser
def test_the_page_is_drawn(report: Report, tmp_path: Path) -> None:
    page = report.folder / "report.html"
    assert (screenshot(page, tmp_path)[0, 0] == 255).all()
    found = measure(page, tmp_path, 360)
    assert found["page"] <= 360
    assert found["wide"] == []
    assert len(found["images"]) == report.num_figures
    assert all(complete and natural > 300 for _, complete, natural, _ in found["images"])


def test_a_report_takes_the_place_of_an_earlier_one_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not ours stays, and is found before the work begins."""

    def work(*arguments: object, **options: object) -> None:
        raise AssertionError("begun")

    monkeypatch.setattr("probvae.report.build_report.diagnose", work)
    vae, x = probvae.VAE.example(), torch.zeros(5, 3)
    for number, name in enumerate(("report.html", "report.json", "posterior.nc", "figures/mine.png")):
        folder = tmp_path / str(number)
        file = folder / name
        file.parent.mkdir(parents=True)
        file.write_text("mine")
        with pytest.raises(RunError, match=f"{name.split('/')[0]} there is not from an earlier report"):
            probvae.report(vae, x, folder)
        assert file.read_text() == "mine"
    for ours in ("report.json", "config.toml"):
        folder = tmp_path / f"ours-{ours}"
        folder.mkdir()
        (folder / "report.html").write_text("old")
        (folder / ours).write_text('{"answer": "", "verdicts": [], "about": {}}')
        (folder / "model.safetensors").write_text("")
        with pytest.raises(AssertionError, match="begun"):
            probvae.report(vae, x, folder)
        assert (folder / "report.html").read_text() == "old"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="cannot be written"):
        probvae.report(vae, x, tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": [1, 2]}, ShapeError, "labels: expected one for each of 5 rows, got 2"),
        ({"feature_names": ["a"]}, ShapeError, "feature_names: expected 3 names, got 1"),
        ({"image_shape": (2, 2)}, ShapeError, r"image_shape: .* 3 entries, got \(2, 2\)"),
        ({"num_data": 6}, ArgumentError, "num_data"),
        ({"num_data": 0}, ArgumentError, "num_data"),
        ({"truth": "exact"}, TypeError, "closed-form"),
        ({"truth": "guess"}, ArgumentError, "guess"),
    ],
)
def test_mistakes_are_found_before_a_folder_is_made(
    tmp_path: Path, options: dict[str, object], error: type[Exception], message: str
) -> None:
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, 3), GaussianLikelihood(3))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(3), 2))
    with pytest.raises(error, match=message):
        probvae.report(vae, torch.zeros(5, 3), tmp_path / "out", **options)
    with pytest.raises(DataError, match="x"):
        probvae.report(vae, torch.full((5, 3), torch.nan), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_room_is_a_package_and_a_function() -> None:
    import probvae.report as room
    from probvae.report import to_arviz

    assert room is probvae.report is sys.modules["probvae.report"]
    assert inspect.ismodule(room)
    assert probvae.to_arviz is to_arviz
    assert list(inspect.signature(probvae.report).parameters)[:3] == ["vae", "x", "path"]
    page = pydoc.plain(pydoc.render_doc(probvae.report))
    for text in ("probvae.report(vae, x, path", "labels", "image_shape", "RunError", "to_arviz(", "build_report"):
        assert text in page
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = probvae.report.nothing


@pytest.mark.parametrize("code", ["probvae.report", "from probvae import report", "import probvae.report"])
def test_to_look_the_room_up_imports_no_torch(code: str) -> None:
    code = f"import sys, probvae\n{code}\nprint(callable(probvae.report), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
