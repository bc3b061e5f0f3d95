"""Was it trained long enough, and has the encoder overfitted? The verdicts, and what they advise."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import probvae
from probvae.diagnostics import TrainedOn
from probvae.diagnostics.convergence import convergence, trend_of
from probvae.diagnostics.diagnose import diagnose
from probvae.inference import DiagonalGuide, ExactGuide, MLPEncoder
from probvae.inference.evaluation.variance import optimal_variance
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, MLPDecoder, StandardNormalPrior
from tests.support import example_a

NUM = 400


def learned_vae(factor: float, mode: str = "learned") -> tuple[probvae.VAE, Tensor]:
    """Example A with its c learned, and data from it; then c is ``factor`` times as large."""
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3, variance=mode)).double()
    with torch.no_grad():
        model.decoder.weight.copy_(example_a.W)
        model.decoder.bias.copy_(example_a.B)
        model.likelihood.log_variance.fill_(math.log(example_a.C))
    vae = probvae.VAE(model, ExactGuide(model))
    x = probvae.sample(vae, NUM, seed=7).x
    with torch.no_grad():
        model.likelihood.log_variance.add_(math.log(factor))
    return vae, x


@pytest.mark.parametrize("mode", ["learned", "per-dimension"])
def test_a_learned_variance_at_its_optimum_is_ok(mode: str) -> None:
    vae, x = learned_vae(1.0, mode)
    (verdict,) = convergence(vae, x, TrainedOn(vae, x)).verdicts()
    assert (verdict.name, verdict.status) == ("convergence/variance", "ok")
    assert verdict.value < 0.02


@pytest.mark.parametrize(
    ("factor", "known", "status"),
    [(25.0, False, "fail"), (4.0, True, "warn"), (0.1, False, "ok"), (0.1, True, "fail")],
)
def test_a_variance_that_is_not_there_yet(factor: float, known: bool, status: str) -> None:
    """The gain is D/2 (r - 1 - log r); on unknown rows only a c that is too large says something of the training."""
    vae, x = learned_vae(factor)
    result = convergence(vae, x, TrainedOn(vae, x) if known else None)
    (verdict,) = result.verdicts()
    assert verdict.status == status
    r = float(result.ratio.mean())
    assert verdict.value == pytest.approx(1.5 * (r - 1 - math.log(r)))
    assert ("train longer" in verdict.message) is (status != "ok")
    # an independent value of the ratio: the exact expectation over the posterior
    assert r == pytest.approx(optimal_variance(vae, x) / (factor * example_a.C), rel=0.03)


def test_a_tighter_bound_has_another_optimum() -> None:
    vae, x = learned_vae(0.4)
    assert convergence(vae, x, TrainedOn(vae, x, objective="iwae")).ended


def history(values: Any) -> list[dict[str, float]]:
    return [{"epoch": n + 1, "elbo": float(value)} for n, value in enumerate(values)]


def test_the_trend_is_that_of_a_line_and_knows_its_noise() -> None:
    rng = np.random.default_rng(0)
    found, alarms = [], 0
    for _ in range(300):
        noise = rng.normal(size=50)
        noise = 0.3 * (noise + 0.8 * np.roll(noise, 1))  # it lasts for two epochs
        alarms += trend_of(history(noise)).gain > 3 * trend_of(history(noise)).standard_error
        rising = trend_of(history(0.1 * np.arange(50) + noise))
        found.append((rising.gain, rising.standard_error))
    gains, errors = np.array(found).T
    assert abs(gains.mean() - 1.0) < 4 * gains.std() / 300**0.5
    assert gains.std() < 1.5 * np.median(errors)
    assert alarms <= 9
    assert trend_of(history(np.arange(100.0))).epochs == 20
    assert trend_of(history([1.0, 2.0, 3.0])) is None
    assert trend_of([{"elbo": 1.0 * n, "validation_elbo": -2.0 * n} for n in range(20)]).gain == pytest.approx(-20.0)


@pytest.mark.parametrize(
    ("values", "status"),
    [([-100.0], "fail"), (np.arange(30.0), "fail"), (0.02 * np.arange(30.0), "warn"), (np.zeros(30), "ok")],
)
def test_verdicts_on_the_last_epochs(values: Any, status: str) -> None:
    vae, x = learned_vae(1.0)
    verdict = convergence(vae, x, TrainedOn(vae, x, history(values))).verdicts()[1]
    assert (verdict.name, verdict.status) == ("convergence/last_epochs", status)


def test_a_run_that_was_not_trained_is_told_to_train_and_not_to_drop_latents() -> None:
    torch.manual_seed(2)
    likelihood = GaussianLikelihood(3, variance="learned")
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, 3), likelihood)
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(3), 2))
    with torch.no_grad():
        vae.guide.loc.weight[1:].zero_()  # one latent is off, and one is not
        vae.guide.loc.weight[0] *= 3
    x = torch.randn(60, 3)
    untrained = diagnose(vae, x, quick=True, trained_on=TrainedOn(vae, x, []))
    status = {verdict.name: verdict.status for verdict in untrained.verdicts}
    assert status["convergence/last_epochs"] == "fail"
    assert status["latent_usage/collapse"] == "warn"
    assert not any("loses nothing" in text for text in [*untrained.advice, str(untrained)])
    assert "train longer (--epochs)" in untrained.advice[0]
    # nothing is known of the training, and nothing is promised
    assert not any("loses nothing" in text for text in diagnose(vae, x, quick=True).advice)


class Memorised(ExactGuide):
    """The exact posterior for rows that it knows, and one that is off for others."""

    known: Tensor

    def distribution(self, x: Tensor) -> Any:
        q = super().distribution(x)
        off = 1 - (x.unsqueeze(1) == self.known).all(-1).any(1, keepdim=True).to(x)
        return torch.distributions.MultivariateNormal(q.mean + 2 * off, scale_tril=q.scale_tril)


@pytest.mark.parametrize("overfitted", [True, False])
def test_an_overfitted_encoder_is_not_told_to_train_longer(overfitted: bool) -> None:
    model = example_a.model()
    guide = Memorised(model) if overfitted else ExactGuide(model)
    vae = probvae.VAE(model, guide)
    train, x = probvae.sample(probvae.VAE(model, ExactGuide(model)), 120, seed=1).x.split(60)
    guide.known = train
    found = diagnose(vae, x, quick=True, trained_on=TrainedOn(vae, train))
    result = found.sections["generalisation"]
    verdict = {v.name: v for v in found.verdicts}["generalisation/inference"]
    assert verdict.status == ("fail" if overfitted else "ok")
    both = {entry["rows"]: entry for entry in result.summary()["ledgers"]}
    assert both["training"]["total"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert (both["held-out"]["total"]["value"] > 1) is overfitted
    for entry in both.values():
        assert entry["log_evidence"]["value"] - entry["elbo"]["value"] == pytest.approx(entry["total"]["value"])
    if overfitted:
        assert "it has overfitted. Do not train it longer" in found.advice[0]
        assert not any("train it longer, " in text for text in found.advice)
    else:
        assert found.status == "ok"


def test_fewer_latents_are_advised_where_the_training_has_ended() -> None:
    torch.manual_seed(2)
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, 3), GaussianLikelihood(3))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(3), 2))
    with torch.no_grad():
        vae.guide.loc.weight[1:].zero_()
        vae.guide.loc.weight[0] *= 3
    x = torch.randn(60, 3)
    advice = diagnose(vae, x, quick=True, trained_on=TrainedOn(vae, x, history([-3.0] * 30))).advice
    assert any("latent_dim=1, which loses nothing" in text for text in advice)
