"""What ArviZ reads: every number against the VAE's own, and ArviZ's functions on it, 0.23 as well as 1.x."""

import logging
import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError, DataError, ShapeError
from probvae.foundation.text import quiet_arviz
from probvae.inference import DiagonalGuide, ExactGuide, MaskedEncoder, MLPEncoder
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, NumberCovariates, StandardNormalPrior
from tests.support import example_a
from tests.support.vaes import best_diagonal_vae, exact_guide_vae

matplotlib.use("agg")
az = quiet_arviz()
GROUPS = {
    "posterior": {"z": ("chain", "draw", "datum", "latent")},
    "posterior_predictive": {"x": ("chain", "draw", "datum", "feature")},
    "log_likelihood": {"x": ("chain", "draw", "datum")},
    "sample_stats": {"log_p": ("chain", "draw", "datum"), "log_q": ("chain", "draw", "datum"), "pareto_k": ("datum",)},
    "prior": {"z": ("chain", "draw", "datum", "latent")},
    "prior_predictive": {"x": ("chain", "draw", "datum", "feature")},
    "observed_data": {"x": ("datum", "feature")},
}


def data(num_data: int) -> torch.Tensor:
    return probvae.sample(exact_guide_vae(), num_data, seed=3).x


def values(result: Any, group: str, name: str) -> torch.Tensor:
    return torch.from_numpy(result[group][name].to_numpy())


def test_groups_dimensions_and_coordinates() -> None:
    names, labels = ["height", "width", "weight"], np.array(["a", "b", "a", "c"])
    result = probvae.to_arviz(
        best_diagonal_vae(), data(4), num_samples=30, num_predictive=4, labels=labels, feature_names=names
    )
    for group, variables in GROUPS.items():
        found = result[group]
        assert {name: variable.dims for name, variable in found.data_vars.items()} == variables
        assert found["datum"].to_numpy().tolist() == [0, 1, 2, 3]
        assert found["label"].to_numpy().tolist() == labels.tolist()
    assert result.posterior["z"].shape == (1, 30, 4, 2)
    assert result.posterior["latent"].to_numpy().tolist() == [0, 1]
    predictive = result.posterior_predictive
    assert predictive["x"].sel(feature="width", datum=2).shape == (1, 4)
    # each x belongs to the z of the same draw
    assert predictive["draw"].to_numpy().tolist() == [0, 10, 19, 29]


def test_log_densities_are_those_of_the_draws() -> None:
    vae, x = best_diagonal_vae(), data(6)
    result = probvae.to_arviz(vae, x, num_samples=40)
    z = values(result, "posterior", "z")[0]
    residual = x - z @ example_a.W.T - example_a.B
    log_likelihood = -0.5 * residual.square().sum(-1) / example_a.C - 1.5 * math.log(2 * math.pi * example_a.C)
    log_prior = -0.5 * z.square().sum(-1) - math.log(2 * math.pi)
    assert_close(values(result, "log_likelihood", "x")[0], log_likelihood, rtol=0, atol=1e-12)
    assert_close(values(result, "sample_stats", "log_p")[0], log_prior + log_likelihood, rtol=0, atol=1e-12)
    precision = example_a.precision()
    mean = torch.linalg.solve(precision, example_a.W.T @ (x - example_a.B).T / example_a.C).T
    variance = 1 / precision.diagonal()
    log_q = torch.distributions.Normal(mean, variance.sqrt()).log_prob(z).sum(-1)
    assert_close(values(result, "sample_stats", "log_q")[0], log_q, rtol=0, atol=1e-9)


def test_an_exact_guide_makes_log_p_minus_log_q_the_evidence() -> None:
    result = probvae.to_arviz(exact_guide_vae(), example_a.X, num_samples=30)
    log_w = values(result, "sample_stats", "log_p") - values(result, "sample_stats", "log_q")
    assert_close(log_w, example_a.LOG_P.expand(1, 30, 2), rtol=0, atol=1e-9)
    assert values(result, "sample_stats", "pareto_k").isneginf().all()


def test_predictive_draws_have_the_moments_of_the_model() -> None:
    num = 20_000
    result = probvae.to_arviz(exact_guide_vae(), example_a.X, num_samples=num, num_predictive=num)
    evidence = example_a.W @ example_a.W.T + example_a.C * torch.eye(3, dtype=torch.float64)
    posterior = torch.linalg.inv(example_a.precision())
    mean = (example_a.X - example_a.B) @ example_a.W / example_a.C @ posterior @ example_a.W.T + example_a.B
    spread = example_a.W @ posterior @ example_a.W.T + example_a.C * torch.eye(3, dtype=torch.float64)
    for group, location, covariance in (
        ("prior_predictive", example_a.B.expand(2, 3), evidence),
        ("posterior_predictive", mean, spread),
    ):
        x = values(result, group, "x")[0]
        variance = covariance.diagonal()
        assert ((x.mean(0) - location).abs() < 5 * (variance / num).sqrt()).all()
        assert ((x.var(0) / variance - 1).abs() < 5 * (2 / num) ** 0.5).all()
    z = values(result, "prior", "z")[0]
    assert (z.mean(0).abs() < 5 / num**0.5).all()
    assert ((z.var(0) - 1).abs() < 5 * (2 / num) ** 0.5).all()
    # other data, other draws: z_1 and z_2 of the plate are independent
    assert abs(float(torch.corrcoef(z[..., 0].T)[0, 1])) < 5 / num**0.5


def test_chunks_change_nothing_but_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    from probvae.inference.evaluation import memory, row_tiles

    monkeypatch.setattr(memory, "MEMORY_LIMIT", 40_000)
    vae, x = exact_guide_vae(), data(30)
    assert len(list(row_tiles.tiles_within_limit(vae, x, 30))) > 3
    result = probvae.to_arviz(vae, x, num_samples=30)
    log_w = values(result, "sample_stats", "log_p") - values(result, "sample_stats", "log_q")
    assert_close(log_w[0], probvae.exact_log_evidence(vae.model, x).expand(30, 30), rtol=0, atol=1e-9)
    assert_close(values(result, "observed_data", "x"), x, rtol=0, atol=0)


def test_given_covariates() -> None:
    torch.manual_seed(1)
    model = LatentModel(
        StandardNormalPrior(2),
        LinearDecoder(4, 3),
        GaussianLikelihood(3),
        covariates=NumberCovariates([0.0, 0.0], [1.0, 1.0]),
    )
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(5, hidden=(5,)), 2)).double()
    y, x = torch.randn(6, 2, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="conditional"):
        probvae.to_arviz(vae, x)
    given = vae.given(y)
    result = probvae.to_arviz(given, x, num_samples=30)
    z = values(result, "posterior", "z")[0]
    with torch.no_grad():
        assert_close(values(result, "sample_stats", "log_p")[0], given.model.log_joint(x, z), rtol=0, atol=1e-12)


def test_missing_entries_stay_missing() -> None:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3), missing="mask")
    vae = probvae.VAE(model, DiagonalGuide(MaskedEncoder(MLPEncoder(6, hidden=(5,)), 3), 2)).double()
    x = data(4)
    x[1, 2] = torch.nan
    result = probvae.to_arviz(vae, x, num_samples=30)
    assert values(result, "observed_data", "x").isnan().sum() == 1
    assert values(result, "log_likelihood", "x").isfinite().all()
    assert values(result, "posterior_predictive", "x").isfinite().all()


def test_nothing_of_the_caller_changes() -> None:
    vae, x, state = best_diagonal_vae(), data(4), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    one, two = (probvae.to_arviz(vae, x, num_samples=30, seed=5) for _ in range(2))
    assert torch.equal(values(one, "posterior", "z"), values(two, "posterior", "z"))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())


def test_arvizs_own_functions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import matplotlib.pyplot as plt

    vae, x = exact_guide_vae(), data(8)
    result = probvae.to_arviz(vae, x, num_samples=200, num_predictive=200, labels=list("abababab"))
    with caplog.at_level(logging.ERROR):
        table = az.summary(result, var_names=["z"], kind="stats")
        assert table.shape[0] == 16
        mean = result.posterior["z"].mean(("chain", "draw")).to_numpy().ravel()
        assert np.abs(table["mean"].to_numpy(dtype=float) - mean).max() < 0.006  # three digits are printed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what ArviZ asks of Matplotlib is its own affair
            plot = vars(az).get("plot_posterior") or az.plot_dist
            plot(result, var_names=["z"])
            plt.close("all")
    file = tmp_path / "posterior.nc"
    result.to_netcdf(str(file))
    again = az.from_netcdf(str(file))
    for group, variables in GROUPS.items():
        for name in variables:
            assert torch.equal(values(again, group, name), values(result, group, name))
    assert again.posterior["label"].to_numpy().tolist() == list("abababab")
    getattr(again, "close", lambda: None)()


def test_loo_is_the_harmonic_mean_of_the_likelihood() -> None:
    """p(x) = 1 / E[1 / p(x|z)] under the posterior: with a decoder that hardly uses z its weights are tame."""
    model = example_a.model()
    with torch.no_grad():
        model.decoder.weight.mul_(0.2)
    vae, num = probvae.VAE(model, ExactGuide(model)), 4000
    x = probvae.sample(vae, 5, seed=2).x
    loo = az.loo(probvae.to_arviz(vae, x, num_samples=num), pointwise=True)
    found = torch.as_tensor(np.asarray(loo.loo_i if hasattr(loo, "loo_i") else loo.elpd_i))
    assert (np.asarray(loo.pareto_k) < 0.5).all()
    log_likelihood = values(probvae.to_arviz(vae, x, num_samples=num), "log_likelihood", "x")[0]
    weights = (-log_likelihood).exp()
    error = weights.std(0) / weights.mean(0) / num**0.5
    assert ((found - probvae.exact_log_evidence(model, x)).abs() < 5 * error).all()


def test_loo_warns_where_the_latents_say_much_of_x() -> None:
    result = probvae.to_arviz(exact_guide_vae(), data(5), num_samples=500)
    with pytest.warns(UserWarning, match="[Pp]areto"):
        az.loo(result)


def test_bad_arguments() -> None:
    vae, x = best_diagonal_vae(), data(4)
    with pytest.raises(ShapeError, match=r"labels: expected one for each of 4 data, got 3\. Pass them all"):
        probvae.to_arviz(vae, x, labels=[1, 2, 3])
    with pytest.raises(ArgumentError, match=r"feature_names: expected 3 different names.*got 3 .2 different"):
        probvae.to_arviz(vae, x, feature_names=["a", "b", "a"])
    with pytest.raises(ArgumentError, match="num_predictive: expected at most num_samples=30, got 31"):
        probvae.to_arviz(vae, x, num_samples=30, num_predictive=31)
    with pytest.raises(ShapeError, match="expected 3 columns"):
        probvae.to_arviz(vae, x[:, :2])
    with pytest.raises(DataError, match="NaN"):
        probvae.to_arviz(vae, x * torch.nan)


@pytest.mark.slow
def test_a_daily_announcement_of_arviz_is_not_heard(tmp_path: Path) -> None:
    """A fresh cache folder makes ArviZ 0.23 announce 1.0 at import."""
    code = "import probvae, torch; probvae.to_arviz(probvae.VAE.example(), torch.zeros(2, 3), num_samples=30)"
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
