"""The fit: what it promises, and what it refuses."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError, DataError, FloorWarning, NonFiniteLossError, ProbvaeError, RunError
from probvae.inference import (
    DiagonalGuide,
    FullCovarianceGuide,
    LinearEncoder,
    MLPEncoder,
    bound,
    fit,
    optimal_variance,
)
from probvae.models import BernoulliLikelihood, GaussianLikelihood, LatentModel, LinearDecoder, StandardNormalPrior
from tests.support import example_a

DIM = 4


def data(num: int = 300, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    z, noise = torch.randn(num, 2, generator=generator), torch.randn(num, DIM, generator=generator)
    return z @ torch.randn(2, DIM, generator=generator) + 0.3 * noise + 1


def make(seed: int = 0, variance: float | str = "learned", **options: float) -> probvae.VAE:
    torch.manual_seed(seed)
    likelihood = GaussianLikelihood(DIM, variance=variance, **options)
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, DIM), likelihood)
    return probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, hidden=(16,)), 2))


def quiet(vae: probvae.VAE, x: torch.Tensor, **options: object) -> probvae.FitResult:
    return fit(
        vae,
        x,
        **{"epochs": 3, "batch_size": 50, "learning_rate": 1e-3, "schedule": "constant", "progress": False, **options},
    )


def weights(vae: probvae.VAE) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(vae.parameters()).detach().clone()


def test_history_has_one_record_an_epoch() -> None:
    result = quiet(make(), data(), epochs=5, validation=0.2)
    assert [record["epoch"] for record in result.history] == [1, 2, 3, 4, 5]
    for record in result.history:
        assert {"elbo", "kl", "variance", "seconds", "validation_elbo", "validation_kl"} <= record.keys()
    assert result.history[-1]["elbo"] > result.history[0]["elbo"]
    assert result.best_epoch == 5


def test_reported_bound_is_the_bound() -> None:
    """At a learning rate of nearly zero the epoch's mean is the bound of the weights, whatever the batch size."""
    x, vae = data(2000), make()
    exact = bound(vae, x, num_samples=200)
    spread = bound(vae, x).elbo.std().item() / math.sqrt(len(x))
    for batch_size in (7, 64, 2000):
        record = quiet(vae, x, epochs=1, batch_size=batch_size, learning_rate=1e-12).history[0]
        assert abs(record["elbo"] - exact.elbo.mean().item()) < 5 * spread
        assert record["kl"] == pytest.approx(exact.kl.mean().item(), abs=0.1)


def test_same_seed_same_bits_and_other_seed_other_bits() -> None:
    def fitted(seed: int) -> torch.Tensor:
        vae = make()
        quiet(vae, data(), seed=seed, validation=0.1)
        return weights(vae)

    first = fitted(3)
    fitted(4)  # another fit in between
    assert torch.equal(first, fitted(3))
    assert not torch.equal(first, fitted(4))


def test_the_callers_random_states_are_left_alone() -> None:
    vae, x = make(), data()

    def states() -> tuple:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    before = states()
    quiet(vae, x, validation=0.1)
    assert states() == before


def test_validation_data_are_not_trained_on() -> None:
    x, held_out = data(), data(60, seed=1)
    result = quiet(vae := make(), x, validation=held_out)
    assert result.history[-1]["validation_elbo"] == pytest.approx(bound(vae, held_out, 100).elbo.mean().item(), abs=1.0)
    same = make()
    quiet(same, x, validation=held_out + 5)
    assert torch.equal(weights(vae), weights(same))


def test_patience_stops_and_restores_the_best() -> None:
    # few data and a large network: the validation bound falls soon
    torch.manual_seed(0)
    model = LatentModel(StandardNormalPrior(2), probvae.MLPDecoder(2, DIM), GaussianLikelihood(DIM))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM), 2))
    held_out = data(200, seed=5)
    result = quiet(vae, data(20), epochs=400, batch_size=20, learning_rate=1e-2, patience=10, validation=held_out)
    assert len(result.history) == result.best_epoch + 10 < 400
    assert "no better validation ELBO for 10 epochs" in result.stopped
    best = result.history[result.best_epoch - 1]["validation_elbo"]
    assert best == max(record["validation_elbo"] for record in result.history)
    values = bound(vae, held_out, 20).elbo
    assert abs(values.mean().item() - best) < abs(values.mean().item() - result.history[-1]["validation_elbo"])


def test_gradient_clip_bounds_the_first_step() -> None:
    # Adam divides by the gradient's own size, so only its memory shows the clip: compare two-step paths
    free, clipped = make(), make()
    quiet(free, 100 * data(), epochs=2, learning_rate=1e-2)
    quiet(clipped, 100 * data(), epochs=2, learning_rate=1e-2, gradient_clip=1e-3)
    assert not torch.equal(weights(free), weights(clipped))
    same = make()
    quiet(same, 100 * data(), epochs=2, learning_rate=1e-2, gradient_clip=1e12)
    assert_close(weights(free), weights(same), rtol=1e-5, atol=1e-6)


def test_cosine_schedule_ends_at_zero() -> None:
    vae, constant = make(), make()
    moved = {}
    for name, one, schedule in (("cosine", vae, "cosine"), ("constant", constant, "constant")):
        start = weights(one)
        quiet(one, data(), epochs=4, schedule=schedule)
        moved[name] = (weights(one) - start).norm().item()
    assert 0.3 < moved["cosine"] / moved["constant"] < 0.8  # the mean of half a cosine is one half


def test_fresh_binarisation_draws_anew() -> None:
    torch.manual_seed(0)
    model = LatentModel(StandardNormalPrior(1), LinearDecoder(1, 2), BernoulliLikelihood(2))
    vae = probvae.VAE(model, DiagonalGuide(LinearEncoder(2), 1))
    p = torch.tensor([0.2, 0.7]).repeat(4000, 1) + 1e-3 * torch.rand(4000, 2)
    quiet(vae, p, epochs=40, batch_size=500, binarization="fresh", learning_rate=1e-2, validation=0.1)
    mean = probvae.sample(vae, 20_000).x.mean(0)
    assert_close(mean, torch.tensor([0.2, 0.7]), rtol=0, atol=0.03)


def test_float64() -> None:
    vae = make().double()
    quiet(vae, data())
    assert {parameter.dtype for parameter in vae.parameters()} == {torch.float64}


def test_run_folder(tmp_path: Path) -> None:
    vae = make()
    result = quiet(vae, data(), epochs=4, out=tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    timeless = [{name: value for name, value in record.items() if name != "seconds"} for record in result.history]
    assert [json.loads(line) for line in lines] == timeless
    names = sorted(file.name for file in (tmp_path / "run" / "checkpoints").iterdir())
    assert names[-1] == "epoch-000004.safetensors"
    assert len(names) <= 2  # one that came while the disk was busy gave way to the next
    for file in (tmp_path / "run", tmp_path / "run" / "checkpoints" / names[-1]):
        assert torch.equal(weights(probvae.load(file)), weights(vae))
    with pytest.raises(RunError, match="exists"):
        quiet(vae, data(), out=tmp_path / "run")
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4


def test_optimal_variance_has_the_trace_term() -> None:
    """In a linear model it is (||x - f(mean)||^2 + tr(W' W S)) / D; without the trace it is too small."""
    guide = FullCovarianceGuide(LinearEncoder(3), 2).double()
    covariance = torch.linalg.inv(example_a.precision()) * 1.3
    example_a.set_affine_guide(guide, torch.linalg.cholesky(covariance))
    vae = probvae.VAE(example_a.model(), guide)
    x = torch.randn(50, 3, dtype=torch.float64)
    residual = x - (guide.distribution(x).mean @ example_a.W.T + example_a.B)
    trace = (example_a.W @ covariance @ example_a.W.T).trace()
    expected = (residual.square().sum(1).mean() + trace) / 3
    assert optimal_variance(vae, x) == pytest.approx(expected.item(), abs=1e-10)


def principal_components(x: torch.Tensor, d: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    eigenvalues, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    return eigenvalues.flip(0), vectors.flip(1)[:, :d], eigenvalues[: x.shape[1] - d].mean().item()


def test_optimal_variance_is_maximum_likelihood_at_the_principal_components() -> None:
    x = data(500).double() @ torch.diag(torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=torch.float64))
    eigenvalues, vectors, sigma2 = principal_components(x, 2)
    scale = (eigenvalues[:2] - sigma2).sqrt()
    model = LatentModel(
        StandardNormalPrior(2), LinearDecoder(2, DIM), GaussianLikelihood(DIM, variance=sigma2)
    ).double()
    guide = DiagonalGuide(LinearEncoder(DIM), 2).double()
    with torch.no_grad():
        model.decoder.weight.copy_(vectors * scale)
        model.decoder.bias.copy_(x.mean(0))
        guide.loc.weight.copy_((scale / eigenvalues[:2])[:, None] * vectors.T)
        guide.loc.bias.copy_(-guide.loc.weight @ x.mean(0))
        guide.log_scale.bias.copy_(example_a.raw_scale((sigma2 / eigenvalues[:2]).sqrt()))
    vae = probvae.VAE(model, guide)
    assert optimal_variance(vae, x) == pytest.approx(sigma2, abs=1e-10)
    assert probvae.inference.reconstruction_error(vae, x).mean().item() < 0.9 * sigma2  # the plug-in is too small


def test_optimal_variance_is_set_by_the_fit() -> None:
    vae, x = make(variance="optimal"), data()
    quiet(vae, x, epochs=2)
    assert vae.model.likelihood.fixed_variance.item() == pytest.approx(optimal_variance(vae, x), rel=1e-5)


def test_learned_variance_stops_at_its_floor_and_says_so() -> None:
    x = data()[:, :1].repeat(1, DIM)  # on a line: the likelihood has no maximum
    vae = make(initial_variance=0.011, minimum_variance=0.01)
    with pytest.warns(FloorWarning, match="1 learned variance.*floor minimum_variance=0.01.*Drop constant columns"):
        quiet(vae, x, epochs=60, learning_rate=3e-2)
    assert 0.01 <= vae.model.likelihood.variance(torch.zeros(1, DIM)).item() <= 0.02


def test_constant_column_with_one_variance_a_dimension() -> None:
    x = data()
    x[:, 2] = 0.5
    vae = make(variance="per-dimension", initial_variance=0.02, minimum_variance=0.01)
    with pytest.warns(FloorWarning, match="learned variance"):
        quiet(vae, x, epochs=150, learning_rate=2e-2)
    assert vae.model.likelihood.variance(torch.zeros(1, DIM))[2] < 0.02


def test_diverging_fit_says_where_and_restores(tmp_path: Path) -> None:
    vae = make()
    with pytest.raises(NonFiniteLossError, match=r"site '(z|x)', epoch \d+, batch \d+:.*Lower learning_rate"):
        quiet(vae, data(), epochs=50, learning_rate=1e18, out=tmp_path / "run")
    assert weights(vae).isfinite().all()
    assert torch.equal(weights(probvae.load(tmp_path / "run")), weights(vae))


def with_value(value: float) -> torch.Tensor:
    x = data(60)
    x[17, 2] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (with_value(math.nan), r"1 of 60 rows contain NaN or infinity \(first: row 17\)"),
        (with_value(math.inf), r"1 of 60 rows contain NaN or infinity \(first: row 17\)"),
        (data(60)[:, :3], r"x: expected 4 columns, got 3"),
        (data(60)[:, 0], r"x: expected shape \(N, D\)"),
        (data(60)[:0], r"x: expected shape \(N, D\) with N, D >= 1"),
        (data(60).long(), "expected a floating-point dtype, got torch.int64"),
        (data(60).tolist(), "expected a torch.Tensor, got list"),
        (torch.ones(60, DIM), "all rows are the same"),
    ],
)
def test_bad_data(x: torch.Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises((DataError, ArgumentError), match=message):
        quiet(make(), x, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected an integer >= 1, got 0"),
        ({"batch_size": 2.5}, "batch_size: expected an integer >= 1, got 2.5"),
        ({"learning_rate": 0}, "learning_rate: expected a finite number > 0, got 0"),
        ({"objective": "elbow"}, "unknown objective 'elbow'. Did you mean 'elbo'"),
        ({"schedule": "cos"}, "unknown schedule 'cos'"),
        ({"gradient_clip": -1.0}, "gradient_clip: expected a finite number > 0"),
        ({"patience": 3}, "patience: expected validation data"),
        ({"max_skipped_steps": -1}, "max_skipped_steps: expected an integer >= 0, got -1"),
        ({"validation": 1.5}, "validation: expected a share between 0 and 1"),
        ({"device": "warp"}, "device: 'warp' is not available"),
        ({"seed": -1}, "seed: expected an integer >= 0"),
        ({"binarization": "once"}, "unknown binarization 'once'"),
        ({"binarization": "fresh"}, r"values in \[0, 1\]"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    before = weights(vae := make())
    with pytest.raises(ProbvaeError, match=message):
        quiet(vae, data(), **options)
    assert torch.equal(weights(vae), before)


def linear_vae(x: torch.Tensor, d: int) -> probvae.VAE:
    torch.manual_seed(0)
    likelihood = GaussianLikelihood(64, variance="learned", initial_variance=x.var(0, correction=0).mean().item())
    model = LatentModel(StandardNormalPrior(d), LinearDecoder(d, 64), likelihood)
    return probvae.VAE(model, DiagonalGuide(LinearEncoder(64), d))


@pytest.mark.slow
@pytest.mark.parametrize(("d", "optimum"), [(2, 0.00570672), (10, 17.45194702)])
def test_linear_vae_reaches_probabilistic_pca(d: int, optimum: float) -> None:
    """Digits/16: the maximum of the mean log-likelihood, in closed form (Tipping and Bishop 1999)."""
    x = torch.from_numpy(load_digits().data / 16).float()
    vae = linear_vae(x, d)
    # the bound is flat along rotations of W that the diagonal guide does not like: they take most of the steps
    options = {"learning_rate": 2e-2, "schedule": "cosine", "objective": "analytic-kl"}
    fit(vae, x, epochs=800, batch_size=100, progress=False, **options)
    values = bound(vae, x, num_samples=100).elbo
    assert optimum - 0.05 < values.mean().item() < optimum + 0.005


@pytest.mark.slow
def test_evidence_of_the_fitted_linear_model_is_that_of_probabilistic_pca() -> None:
    """Digits/16, d = 5, all parts trained: within 0.01 nats of scikit-learn's score, its N - 1 corrected."""
    from sklearn.decomposition import PCA

    x = torch.from_numpy(load_digits().data / 16)
    score, ratio = PCA(5).fit(x).score(x), len(x) / (len(x) - 1)
    optimum = score + 32 * (math.log(ratio) + 1 / ratio - 1)
    assert optimum == pytest.approx(8.90763669, abs=1e-7)
    torch.manual_seed(0)
    likelihood = GaussianLikelihood(64, initial_variance=x.var(0, correction=0).mean().item())
    model = LatentModel(StandardNormalPrior(5), LinearDecoder(5, 64), likelihood)
    vae = probvae.VAE(model, FullCovarianceGuide(LinearEncoder(64), 5)).double()
    fit(vae, x, epochs=400, batch_size=100, learning_rate=1e-2, schedule="cosine", objective="stl", progress=False)
    evidence = probvae.log_evidence(vae, x)
    assert evidence.method == "exact"
    assert optimum - 0.01 < evidence.value.mean().item() < optimum + 1e-9
