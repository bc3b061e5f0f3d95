"""Oracles of the priors that have exact posteriors, and of the model with given numbers."""

import math

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from probvae import testing
from probvae.errors import ArgumentError, ShapeError
from probvae.models import LinearGaussianModel, MixturePrior, NormalPrior, Prior

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 + 0.7 * torch.randn_like(parameter))


def factor_by_hand(log_scale: torch.Tensor, dependence: torch.Tensor | None) -> torch.Tensor:
    """diag(s) (I + T) for d = 3, entry by entry."""
    one, zero = torch.ones(()), torch.zeros(())
    t10, t20, t21 = dependence if dependence is not None else (zero, zero, zero)
    unit = torch.stack([one, zero, zero, t10, one, zero, t20, t21, one]).reshape(3, 3)
    return torch.diag(log_scale.exp()) @ unit


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_normal_prior_matches_scipy(covariance: str, double: None) -> None:
    prior = NormalPrior(3, covariance)
    randomise(prior)
    z, factor = torch.randn(7, 3), factor_by_hand(prior.log_scale, prior.dependence).detach()
    expected = stats.multivariate_normal(prior.loc.detach(), factor @ factor.T).logpdf(z)
    assert_close(prior().log_prob(z).detach(), torch.from_numpy(expected), **EXACT)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_mixture_prior_matches_its_formula(covariance: str, double: None) -> None:
    prior = MixturePrior(3, num_components=4, covariance=covariance)
    randomise(prior)
    z, terms = torch.randn(7, 3), []
    for k in range(4):
        factor = factor_by_hand(prior.log_scale[k], None if prior.dependence is None else prior.dependence[k])
        whitened = torch.linalg.solve(factor, (z - prior.loc[k]).T)
        normal = -0.5 * whitened.square().sum(0) - prior.log_scale[k].sum() - 1.5 * math.log(2 * math.pi)
        terms.append(prior.logits.log_softmax(0)[k] + normal)
    assert_close(prior().log_prob(z), torch.stack(terms).logsumexp(0), **EXACT)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("family", [NormalPrior, MixturePrior])
def test_contract_away_from_the_defaults(family: type[Prior], latent_dim: int, covariance: str) -> None:
    prior = family(latent_dim, covariance=covariance)
    randomise(prior)
    testing.check_prior(prior)


def test_priors_begin_at_the_standard_normal_and_spread_out() -> None:
    z = torch.randn(5, 3)
    for covariance in ("diagonal", "full"):
        assert_close(NormalPrior(3, covariance)().log_prob(z), -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1))
    assert torch.pdist(MixturePrior(3)().component_distribution.mean).min() > 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NormalPrior(0), "latent_dim: expected an integer >= 1, got 0"),
        (lambda: NormalPrior(2, "ful"), "unknown covariance 'ful'. Did you mean 'full'"),
        (lambda: MixturePrior(2, 0), "num_components: expected an integer >= 1, got 0"),
        (lambda: MixturePrior(2, covariance="dense"), "unknown covariance 'dense'"),
        (lambda: LinearGaussianModel(torch.ones(3, 2), variance=0.0), r"variance: .* > 0, got 0 .*singular"),
        (lambda: LinearGaussianModel(torch.ones(3, 2), variance=math.nan), r"variance: .* > 0, got nan"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_sizes_of_the_linear_model_are_checked() -> None:
    with pytest.raises(ShapeError, match=r"bias: expected shape \(3,\), got \(2,\)"):
        LinearGaussianModel(torch.ones(3, 2), torch.zeros(2))
    with pytest.raises(ShapeError, match=r"variance: expected one number or shape \(3,\), got \(2,\)"):
        LinearGaussianModel(torch.ones(3, 2), variance=torch.ones(2))
    with pytest.raises(ShapeError, match="latent_dim=4"):
        LinearGaussianModel(torch.ones(3, 2), prior=NormalPrior(4))


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variance", [0.1, torch.tensor([0.1, 0.2, 3e-5], dtype=torch.float64)], ids=["one", "each"])
def test_linear_model_keeps_its_numbers(variance: float | torch.Tensor, dtype: torch.dtype, trainable: bool) -> None:
    weight, bias = torch.randn(3, 2, dtype=dtype), torch.randn(3, dtype=dtype)
    model = LinearGaussianModel(weight, bias, variance, trainable=trainable)
    c = model.likelihood.variance(bias)
    assert_close(model.decoder(torch.zeros(1, 2, dtype=dtype))[0], bias, **EXACT)
    assert torch.equal(model.decoder.weight, weight)
    exact = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 0}
    assert_close(c.expand(3), torch.as_tensor(variance, dtype=dtype).expand(3), **exact)
    assert {parameter.requires_grad for parameter in model.parameters()} <= {trainable}
    assert c.requires_grad is trainable
    assert model(num_data=4).dtype == dtype
