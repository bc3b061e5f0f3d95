"""`probvae report`: the files, and what is said when there can be none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import arviz
import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import QUICK_REPORT


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "copy"))


def test_terminal_shows_verdicts_advice_and_files(small_report: tuple[Path, str]) -> None:
    folder, shown = small_report
    content = json.loads((folder / "report.json").read_text())
    assert shown.startswith(content["answer"])
    for verdict in content["verdicts"]:
        assert verdict["name"] in shown
        assert verdict["status"] in shown
    assert ("What to try next:" in shown) == bool(content["advice"])
    assert f"wrote {folder / 'report.html'}" in " ".join(shown.split())


def test_json_has_every_number(small_report: tuple[Path, str]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    folder, _ = small_report
    content = json.loads((folder / "report.json").read_text(), parse_constant=refuse)
    assert content["status"] in ("ok", "warn", "fail")
    assert {"gap", "importance"} <= content.keys()
    assert content["gap"]["total"].keys() == {"value", "standard_error"}
    assert content["gap"]["num_data"] == 20  # of 40: a quick ledger
    assert content["importance"]["num_samples"] == 100
    for verdict in content["verdicts"]:
        assert verdict.keys() - {"effect"} == {"name", "status", "value", "threshold", "message"}
        assert verdict["status"] in ("ok", "warn", "fail", "not computed")
    assert content["about"]["Command"].startswith("probvae report ")
    assert content["subject"] == "the first 40 of 359 held-out data of digits, 64 features, 2 latents"


def test_rows_are_called_as_in_the_data(small_run: Path, small_report: tuple[Path, str]) -> None:
    """The least probable rows of the page are among the held-out ones, by their numbers in the whole data."""
    from probvae.experiments.recipe import read_run_recipe
    from probvae.experiments.recipe_data import load_run_data, split

    folder, _ = small_report
    recipe = read_run_recipe(small_run)
    data = load_run_data(small_run)
    held_out = split(data, recipe["data"]["held_out"], recipe["training"]["seed"])[1]
    numbers = held_out.row_numbers[:40]
    np.testing.assert_array_equal(np.asarray(data.x)[numbers], held_out.x[:40])
    typicality = json.loads((folder / "report.json").read_text())["prediction"]["typicality"]
    listed = [entry["row"] for entry in typicality["most_anomalous"]]
    assert set(listed) <= set(numbers.tolist())
    assert max(listed) > 40  # more than the held-out rows that were taken
    assert typicality["ranked_by"].startswith("quadrature")
    draws = arviz.from_netcdf(folder / "posterior.nc")
    np.testing.assert_array_equal(draws["posterior"]["row"], numbers)


def test_figures_and_draws_are_there(small_report: tuple[Path, str]) -> None:
    folder, _ = small_report
    listed = json.loads((folder / "report.json").read_text())["figures"]
    assert {"ledger", "pareto-k", "samples", "reconstructions", "latent-plane", "posteriors"} <= {
        figure["name"] for figure in listed
    }
    files = {file for figure in listed for file in figure["files"]}
    assert files | {"report.html", "report.json", "posterior.nc"} == files_in(folder).keys()
    for figure in listed:
        svg, png = (folder / file for file in figure["files"])
        assert svg.read_text().startswith("<?xml")
        with Image.open(png) as image:
            assert image.convert("L").getextrema()[0] < 128
        assert "good" in figure["caption"].lower()  # how to read it, and what a good one looks like
    draws = arviz.from_netcdf(folder / "posterior.nc")
    assert dict(draws["posterior"]["z"].sizes) == {"chain": 1, "draw": 100, "datum": 40, "latent": 2}


def test_page_shows_the_numbers_of_the_json(small_report: tuple[Path, str]) -> None:
    folder, _ = small_report
    html = (folder / "report.html").read_text(encoding="utf-8")
    content = json.loads((folder / "report.json").read_text())
    assert content["answer"] in html
    assert html.count("<figure>") == len(content["figures"])
    assert f"{content['gap']['truth_error']:.4g}" in html
    assert html.count('class="status') == len(content["verdicts"])


@pytest.mark.slow
def test_same_seed_same_numbers(probvae, small_run: Path, small_report: tuple[Path, str], tmp_path: Path) -> None:
    assert probvae("report", small_run, *QUICK_REPORT, "--out", tmp_path).returncode == 0
    first, second = (json.loads((folder / "report.json").read_text()) for folder in (small_report[0], tmp_path))
    for content in (first, second):
        del content["about"]
    assert first == second


@pytest.mark.usefixtures("unrefined")
def test_one_datum(probvae, small_run: Path, tmp_path: Path) -> None:
    done = probvae("report", small_run, *QUICK_REPORT, "--num-data", "1", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["gap"]["total"]["standard_error"] is None
    assert content["subject"].startswith("the first 1 of 359")


@pytest.mark.slow
def test_only_what_is_needed_is_read(probvae, copy: Path) -> None:
    for name in ("metrics.jsonl", "summary.json"):
        (copy / name).unlink()
    for name in ("checkpoints", "figures"):
        shutil.rmtree(copy / name)
    assert probvae("report", copy, *QUICK_REPORT, "--num-data", "2").returncode == 0
    assert (copy / "report.html").is_file()


@pytest.mark.parametrize("name", ["config.toml", "model.safetensors", "environment.json"])
@pytest.mark.parametrize("length", [None, 0, 0.5], ids=["missing", "empty", "half"])
def test_run_that_was_cut_short(probvae, copy: Path, name: str, length: float | None) -> None:
    content = (copy / name).read_bytes()
    (copy / name).unlink()
    if length is not None:
        (copy / name).write_bytes(content[: int(length * len(content))])
    before = files_in(copy)
    done = probvae("report", copy, *QUICK_REPORT)
    assert done.returncode == 2, done.stdout
    assert name in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(copy) == before


@pytest.mark.parametrize("text", ["{}", "[]", '{"data": 3}', '{"data": {"fingerprint": "other"}}'])
def test_run_fitted_to_other_data(probvae, copy: Path, text: str) -> None:
    (copy / "environment.json").write_text(text)
    done = probvae("report", copy, *QUICK_REPORT)
    assert done.returncode == 2
    assert "data" in done.stderr
    assert "fit it again" in done.stderr.lower()


def test_data_that_have_moved_away(probvae, copy: Path) -> None:
    config = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(config.replace('source = "digits"', 'source = "gone/away.csv"'))
    done = probvae("report", copy, *QUICK_REPORT)
    assert done.returncode == 2
    assert "gone/away.csv" in done.stderr


def wrong_width(folder: Path) -> tuple[str, ...]:
    np.save(folder / "narrow.npy", np.eye(9, 10, dtype=np.float32))
    return "--data", str(folder / "narrow.npy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (wrong_width, "has 10 columns, the model of"),
        (lambda folder: ("--num-data", "5000"), "expected at most 359, the held-out data of digits"),
        (lambda folder: ("--truth", "exact"), "expected a closed-form posterior"),
        (lambda folder: ("--num-data", "0"), "--num-data"),
        (lambda folder: ("--draws", "5"), "--draws"),
    ],
    ids=["width", "more data", "no closed form", "no data", "few draws"],
)
def test_mistakes(
    probvae, small_run: Path, tmp_path: Path, arguments: Callable[[Path], tuple[str, ...]], message: str
) -> None:
    done = probvae("report", small_run, "--quick", "--out", tmp_path / "out", *arguments(tmp_path))
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn", "unrefined")
def test_older_report_stays_when_the_new_one_cannot_be_written(probvae, small_run: Path, tmp_path: Path) -> None:
    older = {"report.html": b"old", "report.json": b'{"answer": "", "verdicts": [], "about": {}}'}
    for name, content in older.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "posterior.nc").mkdir()
    done = probvae("report", small_run, *QUICK_REPORT, "--num-data", "2", "--out", tmp_path)
    assert done.returncode == 2
    assert "posterior.nc" in done.stderr
    assert files_in(tmp_path) == older


def test_files_of_other_origin_stay(probvae, small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    done = probvae("report", small_run, *QUICK_REPORT, "--out", tmp_path)
    assert done.returncode == 2
    assert "report.html there is not from an earlier report" in " ".join(done.stderr.split())
    assert files_in(tmp_path) == {"report.html": b"mine"}


@pytest.mark.slow
def test_text_of_the_data_is_escaped(probvae, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    rng = np.random.default_rng(0)
    rows = [f'"{evil}","b & c",kind', *(f"{a:.3f},{b:.3f},{evil}" for a, b in rng.normal(size=(60, 2)))]
    (tmp_path / "<b>data.csv").write_text("\n".join(rows))
    settings = ("--labels", "kind", "--latent-dim", "1", "--epochs", "1", "--hidden", "4", "--batch-size", "8")
    quiet = ("--no-figures", "--no-progress")
    fitted = probvae("fit", "--data", "<b>data.csv", *settings, "--out", "run", *quiet, cwd=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    done = probvae("report", "run", "--quick", "--no-progress", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "<b>" not in html
    assert "&lt;b&gt;data" in html
    assert 'alt="Exact posteriors and the guide' in html  # of one latent, too
    draws = arviz.from_netcdf(tmp_path / "run" / "posterior.nc")
    assert list(draws["observed_data"]["feature"].values) == [evil, "b & c"]
