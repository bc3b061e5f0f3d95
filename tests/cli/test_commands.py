"""`probvae list`, `sample`, `reconstruct`, `encode`, and the help."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import probvae as package
from probvae.inference import Guide, Objective
from probvae.models import Decoder, Likelihood, Prior

FAMILIES = {"priors": Prior, "likelihoods": Likelihood, "decoders": Decoder, "guides": Guide, "objectives": Objective}


@pytest.mark.parametrize("what", FAMILIES)
def test_list_shows_the_registry(probvae, what: str) -> None:
    lines = probvae("list", what).stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(FAMILIES[what].registry)
    assert all(len(line.split()) > 3 for line in lines)


def test_list_data(probvae) -> None:
    names = [line.split()[0] for line in probvae("list", "data").stdout.splitlines()]
    assert {"digits", "iris", "wine", "breast-cancer", "linear-gaussian", "mnist", "fashion-mnist", "kmnist"} <= set(
        names
    )


def test_help_needs_no_torch(probvae) -> None:
    start = time.perf_counter()
    done = probvae("--help")
    assert done.returncode == 0
    assert "fit" in done.stdout
    assert time.perf_counter() - start < 5  # not a speed test: importing torch on a loaded machine takes longer


def arrays_in(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as content:
        return dict(content)


def test_sample(probvae, small_run: Path, tmp_path: Path) -> None:
    done = probvae("sample", small_run, "-n", "20", "--seed", "5", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    drawn = arrays_in(tmp_path / "samples.npz")
    assert drawn["z"].shape == (20, 2)
    assert drawn["x"].shape == drawn["mean"].shape == (20, 64)
    vae = package.load(small_run)
    with torch.no_grad():
        mean = vae.model.decoder(torch.from_numpy(drawn["z"]))
    np.testing.assert_allclose(drawn["mean"], 16 * mean, atol=2e-5)  # the digits have counts from 0 to 16
    noise = ((drawn["x"] - drawn["mean"]) / 16).var()  # 1280 draws of N(0, c)
    c = vae.model.likelihood.variance(mean).item()
    assert abs(noise / c - 1) < 5 * (2 / 1280) ** 0.5
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size[0] > 300


def test_reconstruct(probvae, small_run: Path, tmp_path: Path) -> None:
    assert probvae("reconstruct", small_run, "--out", tmp_path).returncode == 0
    written = arrays_in(tmp_path / "reconstructions.npz")
    vae = package.load(small_run)
    with torch.no_grad():
        x = torch.from_numpy(written["x"]).float() / 16
        expected = vae.model.decoder(vae.guide.distribution(x).mean).numpy()
    assert set(np.unique(written["x"])) == set(range(17))
    np.testing.assert_allclose(written["reconstruction"], 16 * expected, atol=2e-4)
    np.testing.assert_allclose(written["squared_error"], ((x.numpy() - expected) ** 2).mean(1), atol=1e-5)


def test_encode_other_data(probvae, small_run: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(size=(10, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done = probvae("encode", small_run, tmp_path / "x.npy", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    codes = arrays_in(tmp_path / "codes.npz")
    with torch.no_grad():
        q = package.load(small_run)(torch.from_numpy(x) / 16)  # scaled as the digits of the fit were
    np.testing.assert_allclose(codes["mean"], q.mean, atol=1e-6)
    np.testing.assert_allclose(codes["scale"], q.stddev, atol=1e-6)


def test_encode_keeps_labels(probvae, small_run: Path, tmp_path: Path) -> None:
    assert probvae("encode", small_run, "--out", tmp_path).returncode == 0
    labels = arrays_in(tmp_path / "codes.npz")["labels"]
    assert len(labels) == 1797
    assert set(labels) == set(range(10))


def test_gap(probvae, small_run: Path, tmp_path: Path) -> None:
    done = probvae("gap", small_run, "--num-data", "20", "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    gap = json.loads(done.stdout)
    assert gap == json.loads((tmp_path / "gap.json").read_text())
    assert gap["num_data"] == 20
    assert set(gap["total"]) == {"value", "standard_error"}
    assert (tmp_path / "posteriors.svg").stat().st_size > 1000
    table = probvae("gap", small_run, "--num-data", "20", "--out", tmp_path, "--truth", "importance")
    assert table.returncode == 0, table.stderr
    assert "log p(x) by importance (lower bound" in table.stdout
    refused = probvae("gap", small_run, "--truth", "exact", "--out", tmp_path)
    assert refused.returncode == 2
    assert "decoder" in refused.stderr


def test_gap_of_a_linear_model_is_the_closed_form(probvae, tmp_path: Path) -> None:
    options = ("--decoder", "linear", "--encoder", "linear", "--epochs", "3", "--batch-size", "32", "--no-figures")
    done = probvae("fit", "--data", "wine", *options, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "log p(x) by exact (exact)" in done.stdout
    precision = package.inference.posterior_precision(package.load(tmp_path / "run").model).detach()
    expected = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)).item()
    gap = json.loads((tmp_path / "run" / "summary.json").read_text())["gap"]
    assert gap["approximation"]["value"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.usefixtures("undrawn", "unrefined")
def test_memory_limit_changes_no_number(probvae, small_run: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("default", "given")]
    for folder, options in zip(folders, ([], ["--memory-limit", "64MB"]), strict=True):
        done = probvae("gap", small_run, "--truth", "importance", "--num-data", "20", "--out", folder, *options)
        assert done.returncode == 0, done.stderr
    default, given = (json.loads((folder / "gap.json").read_text()) for folder in folders)
    assert given == default
    for wrong in ("8MB", "512", "many", "infGB"):
        done = probvae("gap", small_run, "--memory-limit", wrong)
        assert done.returncode == 2
        assert f"expected at least 64MB, as in 512MB or 2GB, got '{wrong}'" in " ".join(done.stderr.split())


def test_mistakes(probvae, small_run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "narrow.npy", np.random.default_rng(0).uniform(size=(10, 5)))
    cases = {
        ("sample", tmp_path / "no-run"): "there is no such run",
        ("sample", tmp_path): "model.safetensors",
        ("sample", small_run, "-n", "0"): "--num-samples",
        ("encode", small_run, tmp_path / "narrow.npy"): "5 columns",
        ("encode", small_run, "irish"): "Did you mean 'iris'?",
        ("reconstruct", small_run, "--data", "iris"): "4 columns",
        ("list", "prior"): "prior",
        ("fitt",): "fitt",
    }
    for arguments, message in cases.items():
        done = probvae(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert message in done.stderr, arguments
        assert "Traceback" not in done.stderr


def test_damaged_model_is_refused(probvae, small_run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "run"
    damaged.mkdir()
    content = (small_run / "model.safetensors").read_bytes()
    for name, part in {"cut": content[: len(content) // 2], "empty": b"", "noise": b"\xff" * 500}.items():
        (damaged / "model.safetensors").write_bytes(part)
        done = probvae("sample", damaged)
        assert done.returncode == 2, name
        assert "model.safetensors" in done.stderr
        assert "Traceback" not in done.stderr
