"""Missing entries against brute-force conditioning of the joint Gaussian."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from probvae.errors import ArgumentError, NotLinearGaussianError, ShapeError
from probvae.inference import conditional_covariance, impute_exact
from probvae.inference.linear import exact
from probvae.models import (
    GaussianLikelihood,
    LatentModel,
    LinearGaussianModel,
    MixturePrior,
    MLPDecoder,
    NormalPrior,
    StandardNormalPrior,
)

D = 6


def random_model(name: str) -> LinearGaussianModel:
    torch.manual_seed(5)
    prior = {"standard": StandardNormalPrior(2), "full": NormalPrior(2, "full"), "mixture": MixturePrior(2, 3, "full")}
    made = prior[name].double()
    for parameter in made.parameters():
        parameter.data = 0.3 + 0.6 * torch.randn_like(parameter)
    weight, variance = torch.randn(D, 2, dtype=torch.float64), torch.rand(D, dtype=torch.float64) + 0.05
    return LinearGaussianModel(weight, torch.randn(D, dtype=torch.float64), variance, prior=made)


def components(model: LinearGaussianModel) -> list[tuple[Tensor, Tensor, Tensor]]:
    """log weight, mean and covariance (D x D) of p(x), a component each."""
    w, b, p = model.decoder.weight, model.decoder.bias, model.prior()
    noise = torch.diag(model.likelihood.variance(b).expand(D))
    if hasattr(p, "mixture_distribution"):
        parts, log_weights = p.component_distribution, p.mixture_distribution.logits
        triples = zip(log_weights, parts.mean, parts.covariance_matrix, strict=True)
    else:
        covariance = p.covariance_matrix if hasattr(p, "covariance_matrix") else torch.diag_embed(p.variance)
        triples = [(torch.zeros((), dtype=torch.float64), p.mean, covariance)]
    return [(log_weight.detach(), (w @ m + b).detach(), (w @ s @ w.T + noise).detach()) for log_weight, m, s in triples]


def conditional(model: LinearGaussianModel, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """E and Cov of x_m given x_o for one datum: b_m + C_mo C_oo^-1 (x_o - b_o), mixed over the components."""
    log_weights, means, covariances = [], [], []
    for log_weight, mean, c in components(model):
        oo, mo, mm = c[mask][:, mask], c[~mask][:, mask], c[~mask][:, ~mask]
        error = x[mask] - mean[mask]
        log_p = torch.distributions.MultivariateNormal(mean[mask], oo).log_prob(x[mask]) if mask.any() else 0.0
        log_weights.append(log_weight + log_p)
        means.append(mean[~mask] + mo @ torch.linalg.solve(oo, error))
        covariances.append(mm - mo @ torch.linalg.solve(oo, mo.T))
    weights, m = torch.stack(log_weights).softmax(0), torch.stack(means)
    total = (weights[:, None] * m).sum(0)
    spread = torch.stack(covariances) + (m - total)[:, :, None] * (m - total)[:, None, :]
    return total, (weights[:, None, None] * spread).sum(0)


@pytest.mark.parametrize("prior", ["standard", "full", "mixture"])
def test_imputation_is_the_conditional_of_the_joint(prior: str) -> None:
    model, x = random_model(prior), torch.randn(8, D, dtype=torch.float64)
    mask = torch.rand(8, D) < 0.5
    mask[0] = False
    result = impute_exact(model, torch.where(mask, x, math.nan), mask)
    for n in range(8):
        mean, covariance = conditional(model, x[n], mask[n])
        assert_close(result.mean[n][~mask[n]].detach(), mean, rtol=1e-12, atol=1e-12)
        assert_close(result.variance[n][~mask[n]].detach(), covariance.diagonal(), rtol=1e-12, atol=1e-12)
        assert_close(conditional_covariance(model, x[n], mask[n]).detach(), covariance, rtol=1e-12, atol=1e-12)


def test_the_formula_in_d_dimensions() -> None:
    """b_m + W_m (W_o^T W_o + c I)^-1 W_o^T (x_o - b_o)."""
    c, weight, bias = 0.3, torch.randn(D, 2, dtype=torch.float64), torch.randn(D, dtype=torch.float64)
    model, x = LinearGaussianModel(weight, bias, c), torch.randn(1, D, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True, False, True])
    seen, hidden = weight[mask], weight[~mask]
    inner = torch.linalg.solve(seen.T @ seen + c * torch.eye(2, dtype=torch.float64), seen.T @ (x[0] - bias)[mask])
    expected = bias[~mask] + hidden @ inner
    assert_close(impute_exact(model, x, mask[None]).mean[0][~mask], expected, rtol=1e-12, atol=1e-12)


def test_observed_entries_are_kept() -> None:
    model, x = random_model("full"), torch.randn(8, D, dtype=torch.float64)
    mask = torch.rand(8, D) < 0.5
    mean, variance = impute_exact(model, x, mask)
    assert torch.equal(mean[mask], x[mask])
    assert (variance[mask] == 0).all()
    assert (variance[~mask] > 0).all()


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = random_model("mixture"), torch.randn(30, D, dtype=torch.float64)
    mask = torch.rand(30, D) < 0.5
    whole = impute_exact(model, x, mask)
    monkeypatch.setattr(exact, "_CHUNK_BYTES", 8 * 2 * D * 4)
    assert_close(impute_exact(model, x, mask), whole, rtol=1e-13, atol=1e-13)


def test_imputation_is_calibrated() -> None:
    """On the model's own draws the standardised errors have mean zero and variance one."""
    model = random_model("mixture")
    x = model(num_data=20_000).detach()
    mask = torch.rand(20_000, D) < 0.5
    mean, variance = impute_exact(model, x, mask)
    standardised = ((x - mean) / variance.sqrt())[~mask].detach()
    num = len(standardised)
    assert abs(standardised.mean()) < 5 * standardised.std() / num**0.5
    squares = standardised.square()
    # entries of one datum depend on each other: count data, not entries
    assert abs(squares.mean() - 1) < 5 * squares.std() / 20_000**0.5


def test_bad_input() -> None:
    model, x = random_model("full"), torch.zeros(4, D, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"mask: expected the shape of x, \(4, 6\), got \(4, 5\)"):
        impute_exact(model, x, torch.ones(4, 5, dtype=torch.bool))
    with pytest.raises(ArgumentError, match="boolean"):
        impute_exact(model, x, torch.ones(4, D))
    with pytest.raises(ShapeError, match=r"one datum of shape \(D,\), got \(4, 6\)"):
        conditional_covariance(model, x, torch.ones(4, D, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"mask: expected the shape of x, \(6,\), got \(5,\)"):
        conditional_covariance(model, x[0], torch.ones(5, dtype=torch.bool))
    curved = LatentModel(StandardNormalPrior(2), MLPDecoder(2, D), GaussianLikelihood(D))
    with pytest.raises(NotLinearGaussianError, match="MLPDecoder"):
        impute_exact(curved, x, torch.ones(4, D, dtype=torch.bool))
