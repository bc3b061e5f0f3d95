"""The evidence ladder and the ledger of gaps, against exact answers."""

import math

import pytest
import torch
from torch.testing import assert_close

import probvae
from probvae.data import Dataset
from probvae.diagnostics import posterior_gap
from probvae.errors import ArgumentError, NotLinearGaussianError, UnknownNameError
from probvae.experiments.summary import ledger_of
from probvae.inference import DiagonalGuide, MLPEncoder
from probvae.inference.evaluation.refine import refine
from probvae.inference.evidence import quadrature
from probvae.inference.evidence.log_evidence import best_method, log_evidence
from probvae.models import GaussianLikelihood, LatentModel, MLPDecoder, StandardNormalPrior, StudentTPrior
from tests.support import example_a
from tests.support.vaes import absolute_vae, best_diagonal_vae, exact_vae


def network_vae(latent_dim: int = 2) -> probvae.VAE:
    decoder = MLPDecoder(latent_dim, 3, hidden=(8,), activation="tanh")
    model = LatentModel(StandardNormalPrior(latent_dim), decoder, GaussianLikelihood(3, variance=0.2))
    return probvae.VAE(model, DiagonalGuide(MLPEncoder(3, hidden=(8,)), latent_dim)).double()


ONE = torch.ones(1, 1, dtype=torch.float64)


@pytest.mark.parametrize("method", ["auto", "exact", "quadrature", "annealed", "importance"])
def test_every_rung_gives_the_evidence_of_example_a(method: str) -> None:
    estimate = log_evidence(best_diagonal_vae(), example_a.X, method, num_samples=20_000)
    tolerance = 1e-10 if method in ("auto", "exact") else 1e-4 if method == "quadrature" else 0.05
    assert_close(estimate.value, example_a.LOG_P, rtol=0, atol=tolerance)
    assert estimate.method == ("exact" if method == "auto" else method)
    assert estimate.kind == ("exact" if method in ("auto", "exact", "quadrature") else "lower bound")
    if method != "annealed":
        assert ((estimate.value - example_a.LOG_P).abs() <= 5 * estimate.standard_error + 1e-10).all()


def test_auto_takes_the_highest_rung() -> None:
    assert best_method(exact_vae()) == "exact"
    assert best_method(network_vae(2)) == "quadrature"
    assert best_method(network_vae(3)) == "annealed"


def test_a_method_is_used_or_refused_never_replaced() -> None:
    x = torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(NotLinearGaussianError, match="decoder"):
        log_evidence(network_vae(), x, "exact")
    with pytest.raises(ArgumentError, match="latent_dim <= 2, got 3"):
        log_evidence(network_vae(3), x, "quadrature")
    with pytest.raises(UnknownNameError, match="Did you mean 'quadrature'"):
        log_evidence(network_vae(), x, "quadratur")


@pytest.mark.parametrize(("c", "log_p"), [(0.5, -0.8943680559), (0.1, -0.7292771384), (0.01, -0.7258160230)])
def test_bimodal_evidence(c: float, log_p: float) -> None:
    assert log_evidence(absolute_vae(c), ONE).value.item() == pytest.approx(log_p, abs=1e-4)


# the best normal for the bimodal posterior: c = 0.5 covers both modes, the others one
@pytest.mark.parametrize(
    ("c", "gap", "mean", "scale"),
    [(0.5, 0.062160, 0.0, 0.9016), (0.1, 0.689450, 0.9063, 0.3061), (0.01, math.log(2), 0.9901, 0.0995)],
)
def test_best_normal_of_a_bimodal_posterior(c: float, gap: float, mean: float, scale: float) -> None:
    vae = absolute_vae(c)
    result = posterior_gap(vae, ONE, num_samples=40_000)
    assert result.approximation.value.item() == pytest.approx(
        gap, abs=5 * result.approximation.standard_error.item() + 3e-3
    )
    q = result.refined.distribution(ONE)
    assert q.mean.abs().item() == pytest.approx(mean, abs=0.08)
    assert q.stddev.item() == pytest.approx(scale, rel=0.05)
    assert result.converged.all()


def test_missed_mode_is_seen_although_importance_weights_are_perfect() -> None:
    """A guide on one of two modes: the weights are constant, and the ledger shows the missing log 2."""
    vae = absolute_vae(0.01)
    with torch.no_grad():
        vae.guide.loc.weight.fill_(1 / 1.01)
        vae.guide.loc.bias.zero_()
        vae.guide.log_scale.bias.copy_(example_a.raw_scale(torch.tensor([math.sqrt(0.01 / 1.01)]).double()))
    from probvae.inference.evidence.importance_sampling import importance_log_evidence

    blind = importance_log_evidence(vae, ONE, 10_000)
    assert blind.log_evidence.item() == pytest.approx(-1.41896, abs=1e-3)
    assert blind.ess.item() > 9900
    assert blind.standard_error.item() < 1e-3
    result = posterior_gap(vae, ONE)
    assert result.total.value.item() == pytest.approx(math.log(2), abs=5 * result.total.standard_error.item() + 1e-4)
    assert abs(result.amortisation.value.item()) < 5e-3


def test_ledger_of_the_best_diagonal_guide() -> None:
    result = posterior_gap(best_diagonal_vae(), example_a.X)
    assert_close(result.total.value, torch.full((2,), 0.04580320226440815, dtype=torch.float64), rtol=0, atol=1e-10)
    assert_close(result.approximation.value, result.total.value, rtol=0, atol=1e-10)
    assert_close(result.amortisation.value, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-10)
    assert (result.truth.method, result.truth.kind) == ("exact", "exact")


def test_ledger_of_a_shifted_exact_guide() -> None:
    """The mean moved by m costs m' P m / 2 nats, all of it amortisation for the full family."""
    vae, shift = exact_vae(), torch.tensor([0.3, -0.1], dtype=torch.float64)
    with torch.no_grad():
        vae.guide.loc.bias += shift
    cost = 0.5 * (shift @ example_a.precision() @ shift).item()
    result = posterior_gap(vae, example_a.X)
    assert_close(result.amortisation.value, torch.full((2,), cost, dtype=torch.float64), rtol=0, atol=1e-10)
    assert_close(result.approximation.value, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-10)


def test_numerical_ledger_agrees_with_the_closed_form() -> None:
    """The same model through quadrature, refinement and draws: each part within five of its own standard errors."""
    vae = best_diagonal_vae()
    with torch.no_grad():
        vae.guide.loc.bias += torch.tensor([0.2, 0.1], dtype=torch.float64)
    closed = posterior_gap(vae, example_a.X)
    numerical = posterior_gap(vae, example_a.X, truth="quadrature", num_samples=20_000)
    assert numerical.truth.method == "quadrature"
    for name in ("total", "approximation", "amortisation"):
        ours, exact = getattr(numerical, name), getattr(closed, name)
        # 2e-3: where the search may stop
        assert ((ours.value - exact.value).abs() < 5 * ours.standard_error + 2e-3).all(), name


def test_identity_and_signs_for_every_datum() -> None:
    vae = network_vae()
    x = vae.model(num_data=40).detach()
    result = posterior_gap(vae, x)
    assert_close(result.total.value, result.approximation.value + result.amortisation.value, rtol=0, atol=1e-12)
    for part in (result.total, result.approximation, result.amortisation):
        assert (part.value > -3 * part.standard_error - 1e-4).all()
    assert result.amortisation.value.mean() > 0.1  # the encoder is untrained
    assert result.summary()["num_data"] == 40


def test_refined_guide_corrects_a_bad_encoder() -> None:
    vae = network_vae()
    x = vae.model(num_data=40).detach()
    refined = probvae.VAE(vae.model, refine(vae, x).guide)
    before, after = probvae.elbo(vae, x, 200).mean(), probvae.elbo(refined, x, 200).mean()
    assert after > before + 0.1
    with pytest.raises(ArgumentError, match=r"one distribution for each of the 40 data.*Refine the VAE for these data"):
        refined(x[:3] + 1)


def test_nothing_of_the_callers_changes() -> None:
    vae = network_vae()
    x = vae.model(num_data=5).detach()
    before, state = {n: t.clone() for n, t in vae.state_dict().items()}, torch.get_rng_state()
    first, second = posterior_gap(vae, x, seed=3), posterior_gap(vae, x, seed=3)
    assert torch.equal(first.total.value, second.total.value)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in vae.parameters())


def test_family_that_refine_does_not_know() -> None:
    class Odd(DiagonalGuide):
        def distribution(self, x: torch.Tensor) -> torch.distributions.Distribution:
            q = super().distribution(x)
            return torch.distributions.Independent(torch.distributions.Laplace(q.mean, q.stddev), 1)

    vae = network_vae()
    vae.guide = Odd(MLPEncoder(3), 2).double()
    with pytest.raises(ArgumentError, match="refine knows normal guides"):
        refine(vae, torch.zeros(2, 3, dtype=torch.float64))


def test_an_evidence_that_quadrature_does_not_know_makes_no_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks of width 1e-4 between the nodes of 64 cells: finite numbers, with an error of 1e131 nats."""
    vae = network_vae()
    data = Dataset(vae.model(num_data=4).detach().numpy(), "peaks")
    assert ledger_of(vae.float(), data, seed=0)[1]["truth"] == "quadrature"
    vae.model.likelihood = GaussianLikelihood(3, variance=1e-8)
    monkeypatch.setattr(quadrature, "_MAX_CELLS", 64)
    gap, summary = ledger_of(vae, data, seed=0)
    assert gap is None
    assert summary["not_computed"].startswith("log p(x) is not known for 4 of 4 data: quadrature gives it to ")


def test_a_posterior_that_no_grid_covers_is_left_to_annealing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tails 1/|z|^1.05, of which x says nothing: who asks for quadrature is told, and a fit is not lost at its end."""
    vae = network_vae(1).float()
    vae.model.prior = StudentTPrior(1, degrees=0.05)
    for parameter in vae.model.decoder.parameters():
        parameter.data.zero_()
    monkeypatch.setattr(quadrature, "_MAX_CELLS", 2000)
    data = Dataset(torch.zeros(2, 3).numpy(), "anything")
    gap, summary = ledger_of(vae, data, seed=0, truth="quadrature")
    assert gap is None
    assert "does not cover the posterior, after 10 widenings" in summary["not_computed"]
    gap, summary = ledger_of(vae, data, seed=0)
    assert gap is not None
    assert (summary["truth"], summary["kind"]) == ("annealed", "lower bound")
