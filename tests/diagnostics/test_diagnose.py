"""All diagnostics in one call, and what they advise."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

import probvae
from probvae.diagnostics import advice
from probvae.diagnostics.advice import advice_for
from probvae.diagnostics.diagnose import diagnose
from probvae.diagnostics.ledger.gap import full_covariance_gain
from probvae.diagnostics.verdicts import NotComputed
from probvae.errors import ArgumentError, NotLinearGaussianError, ShapeError
from probvae.inference import DiagonalGuide, ExactGuide, MLPEncoder
from probvae.inference.evaluation.refine import refine
from probvae.models import (
    BernoulliLikelihood,
    GaussianLikelihood,
    LabelCovariates,
    LatentModel,
    LinearDecoder,
    MLPDecoder,
    StandardNormalPrior,
)
from tests.diagnostics.fault_matrix import CASES
from tests.diagnostics.faults import faulty
from tests.support import example_a
from tests.support.vaes import best_diagonal_vae, exact_guide_vae, exact_vae, network_vae


def test_an_exact_guide_has_nothing_against_it() -> None:
    vae = exact_vae()
    seen: list[tuple[str, int, int]] = []
    x = probvae.sample(vae, 200, seed=4).x
    diagnosis = diagnose(vae, x, quick=True, progress=lambda *step: seen.append(step))
    assert {verdict.status for verdict in diagnosis.verdicts} == {"ok"}
    assert diagnosis.status == "ok"
    assert diagnosis.advice == ["Nothing: no diagnostic has anything against this posterior."]
    # progress names every section
    assert [name for name, _, _ in seen] == list(diagnosis.sections)
    assert seen[0][1:] == (0, len(seen))


def test_a_diagonal_guide_is_told_what_a_full_covariance_would_win() -> None:
    vae = best_diagonal_vae()
    diagnosis = diagnose(vae, probvae.sample(vae, 50).x, quick=True)
    assert diagnosis.sections["gap"].total.value.mean().item() == pytest.approx(0.04580320226440815)
    assert any("full-covariance guide would recover 0.0458 of the 0.0458 nats" in text for text in diagnosis.advice)


def test_gain_of_a_full_covariance_in_closed_form_and_by_search() -> None:
    vae, x = best_diagonal_vae(), example_a.X
    closed = probvae.posterior_gap(vae, x)
    gain = full_covariance_gain(vae, x, closed)
    assert gain is not None
    assert_close(gain.value, torch.full((2,), 0.04580320226440815, dtype=torch.float64))
    searched = full_covariance_gain(vae, x, probvae.posterior_gap(vae, x, truth="quadrature"))
    assert searched is not None
    assert ((searched.value - gain.value).abs() < 4 * searched.standard_error + 2e-3).all()
    assert full_covariance_gain(exact_vae(), x, closed) is None


def test_refine_widens_a_diagonal_family() -> None:
    vae, x = best_diagonal_vae(), example_a.X
    best = refine(vae, x, full_covariance=True).guide.distribution(x)
    covariance = probvae.exact_posterior(vae.model, x).covariance_matrix
    assert_close(best.covariance_matrix, covariance.expand(2, 2, 2), rtol=0, atol=5e-3)


def test_numbers_are_json_and_verdicts_are_complete() -> None:
    vae = network_vae()
    summary = diagnose(vae, probvae.sample(vae, 30).x, quick=True).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    for verdict in summary["verdicts"]:
        assert verdict.keys() - {"effect"} == {"name", "status", "value", "threshold", "message"}
        assert verdict["status"] in ("ok", "warn", "fail", "not computed")


def test_what_cannot_be_computed_is_said() -> None:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), BernoulliLikelihood(3, allow_grey=True))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(3, hidden=(5,)), 2))
    diagnosis = diagnose(vae, torch.rand(20, 3), quick=True)
    reasons = {v.name: v.message for v in diagnosis.verdicts if v.status == "not computed"}
    assert "grey data have no probability" in reasons["gap"]
    assert "grey data have no probability" in reasons["importance"]
    assert diagnosis.status in ("warn", "fail")


def test_an_exact_guide_is_ok_where_a_check_cannot_be_computed() -> None:
    """What has no truth to compare with is counted and said, and lowers nothing."""
    diagnosis = diagnose(exact_vae(), probvae.sample(exact_vae(), 200, seed=4).x, quick=True)
    missing = [NotComputed("calibration_on_data", "no grid"), NotComputed("gap", "not this one")]
    verdicts = [*diagnosis.verdicts, *(verdict for part in missing for verdict in part.verdicts())]
    partly = replace(diagnosis, verdicts=verdicts)
    assert (diagnosis.told_status, partly.status, partly.told_status) == ("ok", "ok", "ok, 2 checks not computed")
    assert partly.summary()["num_not_computed"] == 2
    assert str(partly).startswith("ok, 2 checks not computed\n")
    assert replace(partly, verdicts=verdicts[-2:]).told_status == "not computed"
    advice = advice_for(exact_vae(), example_a.X, {}, verdicts)
    assert advice == ["Nothing: no diagnostic that could be computed has anything against this posterior."]


def test_one_datum() -> None:
    vae = exact_vae()
    diagnosis = diagnose(vae, example_a.X[:1], quick=True)
    assert diagnosis.sections["gap"].summary()["total"]["standard_error"] is None
    assert not any(math.isnan(verdict.value) for verdict in diagnosis.verdicts if verdict.value is not None)


def test_bad_arguments_are_refused() -> None:
    vae = network_vae()
    with pytest.raises(ShapeError, match="expected 3 columns, got 2"):
        diagnose(vae, torch.zeros(5, 2, dtype=torch.float64))
    with pytest.raises(NotLinearGaussianError):
        diagnose(vae, torch.zeros(5, 3, dtype=torch.float64), truth="exact")
    with pytest.raises(ArgumentError, match="num_draws"):
        diagnose(vae, torch.zeros(5, 3, dtype=torch.float64), num_draws=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_variance_on_its_floor_is_told_with_the_datas_rank(dtype: torch.dtype) -> None:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 4), GaussianLikelihood(4, variance="learned"))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(4, hidden=(5,)), 2)).to(dtype)
    with torch.no_grad():
        vae.model.likelihood.log_variance.fill_(-30.0)
    x = 0.37 + torch.randn(40, 2, dtype=dtype) @ torch.randn(2, 4, dtype=dtype)
    assert "the data lie on a 2-dimensional subspace" in diagnose(vae, x, quick=True).advice[0]


def test_weights_are_advised_where_they_can_correct() -> None:
    vae = faulty(exact_guide_vae(), "sd x 1.4")
    advice = diagnose(vae, probvae.sample(vae, 300, seed=9).x, quick=True).advice
    assert any("probvae.resample(vae, x)" in text and "100% of the data" in text for text in advice)


def test_latents_that_must_be_off_are_told_without_a_warning() -> None:
    """Eigenvalues 2.25 and 0.25: with c = 0.25 one of two latents is off, and has to be."""
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3, variance=0.25)).double()
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.weight[0, 0] = math.sqrt(2.0)
        model.decoder.bias.zero_()
    vae = probvae.VAE(model, ExactGuide(model))
    diagnosis = diagnose(vae, probvae.sample(vae, 500, seed=21).x, quick=True)
    assert "1 of 2 latents are off, as they must be for c = 0.25." in diagnosis.advice
    assert diagnosis.status == "ok"


def test_a_wrong_model_is_told_apart_from_a_wrong_guide() -> None:
    vae, x = CASES["c of the data twice the model's"](3)
    diagnosis = diagnose(vae, x, quick=True)
    assert any(text.startswith("The model, not the guide: ") for text in diagnosis.advice)
    assert all(v.status == "ok" for v in diagnosis.verdicts if v.name.startswith(("gap", "importance", "calibration")))


def test_a_prior_that_is_not_filled_is_told_in_nats() -> None:
    vae, x = CASES["prior of the data 1.5 times as wide"](2)
    diagnosis = diagnose(vae, x, quick=True)
    told = [text for text in diagnosis.advice if "KL(q(z) || p(z))" in text]
    value = diagnosis.summary()["latent_usage"]["aggregate_kl"]["value"]
    assert len(told) == 1
    assert f"would win {value:.2f}"[:-1] in told[0]
    assert "with decoder and guide as they are" in told[0]
    assert "no upper limit" in told[0]


@pytest.mark.parametrize("decoder", [LinearDecoder(2 + 2, 3), MLPDecoder(2 + 2, 3, hidden=(6,), activation="tanh")])
def test_families_of_conditional_models(decoder: torch.nn.Module) -> None:
    """Beyond closed forms a wider family is not searched where y differs: then nothing is said of the posterior."""
    labels = LabelCovariates(["cat", "dog"])
    model = LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(3, variance=0.05), labels)
    whole = probvae.VAE(model, DiagonalGuide(MLPEncoder(3 + 2, hidden=(5,)), 2)).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(1.5 * torch.randn_like(parameter))
    vae = whole.given(["cat", "dog"] * 10)
    x = probvae.sample(vae, 20).x
    gap = probvae.posterior_gap(vae, x, num_samples=2000)
    assert gap.approximation.value.mean() > 0.02  # what is worth a sentence
    told = list(advice._richer(vae, x, gap, seed=0))
    if isinstance(decoder, LinearDecoder):
        whole_gap = f"{gap.approximation.value.mean():.3g} nats that the diagonal family loses"
        assert len(told) == 1
        assert whole_gap in told[0]
    else:
        assert ["not normal" in sentence for sentence in told] == [False]
        assert "full-covariance, mixture or flow" in told[0]
