"""Pareto k of each datum against its theory, and draws corrected by their weights."""

import math

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from pyro.infer.importance import psis_diagnostic
from torch import Tensor
from torch.testing import assert_close

import probvae
from probvae.diagnostics import importance_diagnostic, resample
from probvae.errors import ArgumentError, DataError
from probvae.inference import DiagonalGuide, FullCovarianceGuide, LinearEncoder
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, StandardNormalPrior
from tests.support import example_a
from tests.support.vaes import Absolute, best_diagonal_vae, exact_vae


def correlated_vae(rho: float) -> tuple[probvae.VAE, Tensor]:
    """A linear model with posterior precision [[40, 40 rho], [40 rho, 40]], its best diagonal guide, and ten data."""
    precision = torch.tensor([[40.0, 40 * rho], [40 * rho, 40.0]], dtype=torch.float64)
    decoder = LinearDecoder(2, 2).double()
    guide = DiagonalGuide(LinearEncoder(2), 2).double()
    with torch.no_grad():
        decoder.weight.copy_(torch.linalg.cholesky(precision - torch.eye(2, dtype=torch.float64)).T)
        guide.loc.weight.copy_(torch.linalg.solve(precision, decoder.weight.T))
        decoder.bias.zero_()
        guide.loc.bias.zero_()
        guide.log_scale.bias.copy_(example_a.raw_scale(precision.diagonal() ** -0.5))
    model = LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(2, variance=1.0)).double()
    vae = probvae.VAE(model, guide)
    return vae, probvae.sample(vae, 10, seed=3).x


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.8])
def test_k_of_the_best_diagonal_guide_is_the_correlation(rho: float) -> None:
    vae, x = correlated_vae(rho)
    x = x.repeat(20, 1)  # k-hat has an sd of 0.1, and is 0.07 too low at 0.8
    result = importance_diagnostic(vae, x, num_samples=10_000, seed=1)
    assert result.pareto_k.mean().item() == pytest.approx(rho, abs=0.12)
    a = torch.linalg.eigvalsh(torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64))
    if rho < 0.5:  # else the weights have no variance
        share = 1 / (a / (2 * a - 1).sqrt()).prod().item()
        assert result.ess.mean().item() / 10_000 == pytest.approx(share, abs=0.02)
    gap = -0.5 * math.log(1 - rho**2)
    exact = probvae.exact_log_evidence(vae.model, x)
    assert (exact - result.log_evidence).abs().mean() < 0.2 * gap  # the smoothed weights win most of the gap


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_exact_guide_is_perfect_where_pyro_says_infinity(dtype: torch.dtype) -> None:
    vae = exact_vae().to(dtype)
    x = example_a.X.to(dtype)
    result = importance_diagnostic(vae, x, num_samples=500)
    assert result.pareto_k.tolist() == [-math.inf, -math.inf]
    assert_close(result.ess, torch.full((2,), 500.0, dtype=torch.float64), rtol=1e-4, atol=0)
    assert_close(result.log_evidence, example_a.LOG_P, rtol=0, atol=1e-10 if dtype == torch.float64 else 1e-4)
    assert [verdict.status for verdict in result.verdicts()] == ["ok", "ok"]
    assert result.summary()["num_constant"] == 2
    if dtype == torch.float64:
        with pytest.warns(UserWarning, match="Not enough tail samples"):
            k = psis_diagnostic(vae.model, vae.guide, x, num_particles=500, max_simultaneous_particles=500)
        assert k == math.inf


def test_one_number_a_datum_whatever_the_batch() -> None:
    vae, x = correlated_vae(0.6)
    whole = importance_diagnostic(vae, x.repeat(20, 1), num_samples=4000).pareto_k
    assert whole.shape == (200,)
    assert whole.mean().item() == pytest.approx(0.6, abs=0.12)


class OneMode(FullCovarianceGuide):
    """The normal of one of the two modes of x ~ N(|z|, c)."""

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return dist.Normal(x / 1.01, math.sqrt(0.01 / 1.01)).to_event(1)


def test_the_blind_spot_a_missed_mode_looks_perfect_here_and_not_in_the_ledger() -> None:
    model = LatentModel(StandardNormalPrior(1), Absolute(), GaussianLikelihood(1, variance=0.01))
    vae = probvae.VAE(model, OneMode(LinearEncoder(1), 1)).double()
    x = torch.ones(1, 1, dtype=torch.float64)
    result = importance_diagnostic(vae, x, num_samples=10_000)
    assert result.pareto_k.item() < 0.3
    assert result.ess.item() > 9900
    assert result.log_evidence.item() == pytest.approx(-0.7258160230 - math.log(2), abs=1e-3)
    truth = probvae.log_evidence(vae, x)
    assert truth.value.item() == pytest.approx(-0.7258160230, abs=1e-6)
    assert (truth.value - probvae.elbo(vae, x, 1000)).item() == pytest.approx(math.log(2), abs=1e-3)


def test_verdicts_count_the_data_above_the_threshold() -> None:
    vae, x = correlated_vae(0.95)
    result = importance_diagnostic(vae, x, num_samples=2000)
    assert result.threshold == pytest.approx(1 - 1 / math.log10(2000))
    assert result.share_above > 0.5
    assert result.verdicts()[0].status == "fail"
    assert "no reliable mean" in result.verdicts()[0].message


def test_resampled_draws_are_the_posterior() -> None:
    vae = best_diagonal_vae()
    posterior = probvae.exact_posterior(vae.model, example_a.X)
    draws = resample(vae, example_a.X, num_samples=4000, num_proposals=20_000, seed=2)
    assert draws.shape == (4000, 2, 2)
    scale = posterior.variance.sqrt()
    assert ((draws.mean(0) - posterior.mean).abs() < 5 * scale / math.sqrt(4000)).all()
    correlation = [np.corrcoef(draws[:, n].T)[0, 1] for n in range(2)]
    assert correlation == pytest.approx([-0.2958644610950393] * 2, abs=5 / math.sqrt(4000))


def test_chunks_of_data_give_the_same_weights_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = exact_vae()
    x = probvae.sample(vae, 30).x
    whole = importance_diagnostic(vae, x, num_samples=100)
    monkeypatch.setattr("probvae.inference.evaluation.memory.MEMORY_LIMIT", 200_000)
    assert_close(importance_diagnostic(vae, x, num_samples=100).log_evidence, whole.log_evidence)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ArgumentError, match="num_samples: expected an integer >= 25"):
        importance_diagnostic(exact_vae(), example_a.X, num_samples=10)
    with pytest.raises(DataError, match="row 1"):
        resample(exact_vae(), example_a.X.index_fill(0, torch.tensor([1]), math.nan))
