"""Conditional models: against the closed form of a linear model whose offset depends on y."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError, ConfigError, DataError, ShapeError
from probvae.inference import (
    DiagonalGuide,
    ExactGuide,
    FullCovarianceGuide,
    LinearEncoder,
    MLPEncoder,
    bound,
    elbo,
    exact_log_evidence,
    posterior_mean,
)
from probvae.inference.evidence.log_evidence import log_evidence
from probvae.models import (
    GaussianLikelihood,
    LabelCovariates,
    LatentModel,
    LinearDecoder,
    MLPDecoder,
    NumberCovariates,
    StandardNormalPrior,
    covariates_for,
)

LABELS = np.array(["cat", "dog", "cow", "dog", "cat", "dog"])


def linear_model(guide: str = "exact") -> probvae.VAE:
    """x = W z + V y + b + noise, y one of three labels."""
    covariates = LabelCovariates(["cat", "cow", "dog"])
    decoder = LinearDecoder(2 + 3, 4)
    model = LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(4, variance=0.3), covariates)
    q = ExactGuide(model) if guide == "exact" else FullCovarianceGuide(LinearEncoder(4 + 3), 2)
    vae = probvae.VAE(model, q).double()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    return vae


def evidence_by_hand(vae: probvae.VAE, x: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    decoder = vae.model.decoder
    weight, slope = decoder.weight[:, :2], decoder.weight[:, 2:]
    one_hot = torch.tensor([[label == name for name in ("cat", "cow", "dog")] for label in labels]).double()
    covariance = weight @ weight.T + 0.3 * torch.eye(4, dtype=torch.float64)
    return MultivariateNormal(one_hot @ slope.T + decoder.bias, covariance).log_prob(x)


def test_evidence_given_labels() -> None:
    vae, x = linear_model(), torch.randn(6, 4, dtype=torch.float64)
    expected = evidence_by_hand(vae, x, LABELS).detach()
    given = vae.given(LABELS)
    assert_close(exact_log_evidence(given.model, x).detach(), expected, rtol=0, atol=1e-12)
    assert_close(elbo(given, x), expected, rtol=0, atol=1e-12)
    for method in ("auto", "exact", "quadrature"):
        estimate = log_evidence(given, x, method)
        assert_close(estimate.value, expected, rtol=0, atol=1e-10 if method != "quadrature" else 1e-4)


def test_one_label_for_all() -> None:
    vae, x = linear_model(), torch.randn(6, 4, dtype=torch.float64)
    expected = evidence_by_hand(vae, x, np.array(["cow"] * 6)).detach()
    assert_close(elbo(vae.given(["cow"]), x), expected, rtol=0, atol=1e-12)
    assert_close(log_evidence(vae.given(["cow"]), x).value, expected, rtol=0, atol=1e-12)


def test_ledger_of_a_conditional_model() -> None:
    """Group by group it is the same as each datum for itself."""
    vae, x = linear_model("full"), torch.randn(6, 4, dtype=torch.float64)
    result = probvae.posterior_gap(vae.given(LABELS), x)
    alone = [probvae.posterior_gap(vae.given(LABELS[n : n + 1]), x[n : n + 1]).total.value for n in range(6)]
    assert_close(result.total.value, torch.cat(alone), rtol=0, atol=1e-12)
    assert_close(result.total.value, result.approximation.value + result.amortisation.value)
    evidence = evidence_by_hand(vae, x, LABELS).detach()
    assert_close(evidence - elbo(vae.given(LABELS), x, 200_000), result.total.value, rtol=0.02, atol=0)


def test_chunks_keep_data_and_covariates_together(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, x = linear_model("full"), torch.randn(6, 4, dtype=torch.float64)
    whole = posterior_mean(vae.given(LABELS), x)
    monkeypatch.setattr("probvae.inference.evaluation.memory.MEMORY_LIMIT", 6 * 8 * 7 * 2)  # two rows
    assert torch.equal(posterior_mean(vae.given(LABELS), x), whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_fit_learns_what_depends_on_y(kind: str) -> None:
    """A linear conditional VAE reaches the evidence of the model that made the data, within a standard error or so."""
    torch.manual_seed(1)
    num, names = 2000, np.array([0, 1, 2])
    labels = names[torch.randint(3, (num,)).numpy()]
    y = torch.nn.functional.one_hot(torch.from_numpy(labels), 3).double() if kind == "labels" else torch.randn(num, 2)
    y = y.double()
    weight, slope = torch.randn(4, 1).double(), 2 * torch.randn(4, y.shape[1]).double()
    x = torch.randn(num, 1).double() @ weight.T + y @ slope.T + 0.5 * torch.randn(num, 4).double()
    truth = MultivariateNormal(y @ slope.T, weight @ weight.T + 0.25 * torch.eye(4).double()).log_prob(x).mean()
    raw = labels if kind == "labels" else y
    covariates = covariates_for(raw)
    size = covariates.num_covariates
    decoder = LinearDecoder(1 + size, 4)
    model = LatentModel(StandardNormalPrior(1), decoder, GaussianLikelihood(4, initial_variance=3.0), covariates)
    vae = probvae.VAE(model, DiagonalGuide(LinearEncoder(4 + size), 1)).double()
    probvae.fit(vae, x, y=raw, epochs=60, learning_rate=0.02, schedule="cosine", validation=0.1, progress=False)
    value = log_evidence(vae.given(raw), x).value.mean()
    assert value.item() == pytest.approx(truth.item(), abs=0.03)
    assert elbo(vae.given(raw), x, 20).mean().item() == pytest.approx(value.item(), abs=0.02)


def test_saved_and_loaded_with_its_labels(tmp_path: Path) -> None:
    vae = linear_model("full").float()
    vae.save(tmp_path / "vae.safetensors")
    again = probvae.load(tmp_path / "vae.safetensors")
    x = torch.randn(6, 4)
    assert again.model.covariates.categories == ("cat", "cow", "dog")
    assert torch.equal(posterior_mean(again.given(LABELS), x), posterior_mean(vae.given(LABELS), x))
    with pytest.raises(ConfigError, match="Save the VAE that given"):
        vae.given(LABELS).save(tmp_path / "given.safetensors")


def test_label_that_training_has_not_seen() -> None:
    with pytest.raises(DataError, match=r"label horse \(row 1; 1 of 2 rows\) was not seen.*cat, cow, dog"):
        linear_model().given(["cat", "horse"])


def test_covariates_of_the_wrong_length() -> None:
    vae, x = linear_model("full"), torch.randn(4, 4, dtype=torch.float64)
    with pytest.raises(ShapeError, match="y: expected covariates for 4 data, got 6 rows"):
        elbo(vae.given(LABELS), x)
    with pytest.raises(ShapeError, match="y: expected covariates for 4 data, got 6 rows"):
        probvae.fit(vae, x, y=LABELS, batch_size=4, progress=False)


def test_y_is_needed_or_refused() -> None:
    x = torch.zeros(4, 4, dtype=torch.float64)
    for call in (lambda v: elbo(v, x), lambda v: v.model(x), lambda v: probvae.fit(v, x, batch_size=4, progress=False)):
        with pytest.raises(ArgumentError, match=r"y was not given. Use vae.given\(y\)"):
            call(linear_model("full"))
    with pytest.raises(ArgumentError, match="this model is not conditional"):
        probvae.VAE.example().given(["cat"])
    with pytest.raises(ShapeError, match=r"expected latent_dim=4 \(prior.latent_dim \+ covariates.num_covariates\)"):
        LatentModel(StandardNormalPrior(2), MLPDecoder(2, 4), GaussianLikelihood(4), LabelCovariates(["a", "b"]))
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(4, 4), GaussianLikelihood(4), LabelCovariates(["a", "b"]))
    with pytest.raises(ShapeError, match=r"expected an encoder with data_dim=6 \(the model's, and its covariates\)"):
        probvae.VAE(model, DiagonalGuide(MLPEncoder(4), 2))


@pytest.mark.parametrize("labels", [[3, 1, 1], [True, False, True], ["a", "b", "a"]])
def test_labels_become_columns(labels: list[object]) -> None:
    covariates = covariates_for(np.array(labels))
    assert isinstance(covariates, LabelCovariates)
    columns = covariates.encode(labels)
    assert columns.shape == (3, 2)
    assert [covariates.categories[code] for code in columns.argmax(1)] == labels


def test_numbers_are_standardised() -> None:
    y = torch.randn(50, 2) * 3 + 1
    covariates = covariates_for(y)
    assert isinstance(covariates, NumberCovariates)
    columns = covariates.encode(y)
    assert_close(columns.mean(0), torch.zeros(2), rtol=0, atol=1e-6)
    assert_close(columns.std(0, correction=0), torch.ones(2))
    with pytest.raises(DataError, match=r"NaN or infinity \(first: row 1\)"):
        covariates.encode([[0.0, 1.0], [np.nan, 0.0]])
    with pytest.raises(ShapeError, match="expected 2 covariates"):
        covariates.encode([[0.0], [1.0]])


def test_parts_of_the_bound_given_y() -> None:
    vae, x = linear_model("full"), torch.randn(6, 4, dtype=torch.float64)
    parts = bound(vae.given(LABELS), x, 3)
    assert_close(parts.elbo, parts.log_likelihood - parts.kl)
