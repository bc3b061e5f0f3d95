"""Contract and oracle of priors, decoders and likelihoods."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.testing import assert_close

from probvae import testing
from probvae.errors import ArgumentError, ProbvaeError, ShapeError, SupportError
from probvae.inference import Encoder, Guide, Objective
from probvae.models import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    Decoder,
    GaussianLikelihood,
    LatentModel,
    Likelihood,
    LinearDecoder,
    MLPDecoder,
    Prior,
    StandardNormalPrior,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}
FAMILIES = (Prior, Decoder, Likelihood, Encoder, Guide, Objective)
DTYPES = (torch.float32, torch.float64)


def randomise(module: torch.nn.Module) -> None:
    """Parameters away from their defaults."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 + torch.randn_like(parameter))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(Prior.registry))
def test_prior_contract(name: str, dtype: torch.dtype) -> None:
    testing.check_prior(Prior.registry[name].example().to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(Likelihood.registry))
def test_likelihood_contract(name: str, dtype: torch.dtype) -> None:
    testing.check_likelihood(Likelihood.registry[name].example().to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(Decoder.registry))
def test_decoder_contract(name: str, dtype: torch.dtype) -> None:
    testing.check_decoder(Decoder.registry[name].example().to(dtype))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.family)
def test_every_component_says_what_it_is(family: type) -> None:
    assert family.registry
    for component in family.registry.values():
        assert len(component.summary()) > 10
        assert isinstance(component.example(), component)


def test_a_name_is_given_once() -> None:
    with pytest.raises(ProbvaeError, match="'standard-normal' is taken by StandardNormalPrior"):
        type("Another", (StandardNormalPrior,), {}, name="standard-normal")


def test_standard_normal_prior_matches_scipy() -> None:
    z = torch.randn(7, 3, dtype=torch.float64)
    expected = scipy.stats.multivariate_normal(np.zeros(3), np.eye(3)).logpdf(z.numpy())
    assert_close(StandardNormalPrior(3).double()().log_prob(z), torch.from_numpy(expected), **EXACT)


def test_linear_decoder_is_affine() -> None:
    decoder = LinearDecoder(4, 6).double()
    randomise(decoder)
    z = torch.randn(5, 4, dtype=torch.float64)
    expected = torch.stack([decoder.weight @ row + decoder.bias for row in z])
    assert_close(decoder(z), expected, **EXACT)


@pytest.mark.parametrize("activation", ["relu", "silu", "softplus", "tanh"])
def test_mlp_decoder_matches_its_formula(activation: str) -> None:
    decoder = MLPDecoder(2, 5, hidden=(4, 3), activation=activation).double()
    randomise(decoder)
    first, second, last = (layer for layer in decoder.network if isinstance(layer, torch.nn.Linear))
    z = torch.randn(6, 2, dtype=torch.float64)
    f = {"silu": lambda a: a * torch.sigmoid(a), "softplus": lambda a: (1 + a.exp()).log()}.get(activation)
    f = f or getattr(torch, activation)
    hidden = f(f(z @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    assert_close(decoder(z), hidden @ last.weight.T + last.bias, **EXACT)


@pytest.mark.parametrize("mode", [0.37, "learned", "per-dimension", "per-datum", "optimal"])
def test_gaussian_matches_its_formula(mode: float | str, double: None) -> None:
    likelihood = GaussianLikelihood(3, variance=mode, initial_variance=0.7, minimum_variance=0.05)
    randomise(likelihood)
    parameters, x = torch.randn(4, likelihood.num_outputs), torch.randn(4, 3)
    if mode == 0.37:
        c = torch.tensor(0.37)
    elif mode == "optimal":
        c = torch.tensor(0.7)
    elif mode == "per-datum":
        c = 0.05 + 0.7 * parameters[:, -1:].exp()
    else:
        c = 0.05 + likelihood.log_variance.exp()
    expected = (-0.5 * (x - parameters[:, :3]) ** 2 / c - 0.5 * (2 * math.pi * c).log()).sum(-1)
    assert_close(likelihood(parameters).log_prob(x), expected, **EXACT)


def test_learned_variance_begins_where_it_is_told(double: None) -> None:
    likelihood = GaussianLikelihood(3, variance="learned", initial_variance=0.42, minimum_variance=0.01)
    assert likelihood.variance(torch.zeros(1, 3)).item() == pytest.approx(0.42, abs=1e-12)


def test_set_variance_respects_the_floor() -> None:
    likelihood = GaussianLikelihood(3, variance="optimal", minimum_variance=1e-3)
    likelihood.set_variance(1e-9)
    assert likelihood.fixed_variance.item() == pytest.approx(1e-3)
    assert likelihood.num_at_floor(torch.zeros(1, 3)) == 1
    likelihood.set_variance(0.5)
    assert likelihood.num_at_floor(torch.zeros(1, 3)) == 0
    with pytest.raises(ArgumentError, match="expected variance='optimal', got 'learned'"):
        GaussianLikelihood(3).set_variance(1.0)


def test_bernoulli_matches_its_formula() -> None:
    logits, x = torch.randn(5, 3, dtype=torch.float64), torch.randint(0, 2, (5, 3)).double()
    p = torch.sigmoid(logits)
    expected = (x * p.log() + (1 - x) * (1 - p).log()).sum(-1)
    assert_close(BernoulliLikelihood(3)(logits).log_prob(x), expected, **EXACT)


def test_grey_bernoulli_is_binary_cross_entropy() -> None:
    logits, x = torch.randn(5, 3, dtype=torch.float64), torch.rand(5, 3, dtype=torch.float64)
    p = torch.sigmoid(logits)
    likelihood = BernoulliLikelihood(3, allow_grey=True)
    likelihood.check_support(x)
    assert_close(likelihood(logits).log_prob(x), (x * p.log() + (1 - x) * (1 - p).log()).sum(-1), **EXACT)


def test_continuous_bernoulli_matches_its_formula() -> None:
    logits, x = 2 * torch.randn(5, 3, dtype=torch.float64), torch.rand(5, 3, dtype=torch.float64)
    p = torch.sigmoid(logits)
    log_normaliser = (2 * torch.atanh(1 - 2 * p) / (1 - 2 * p)).log()
    expected = (log_normaliser + x * p.log() + (1 - x) * (1 - p).log()).sum(-1)
    assert_close(ContinuousBernoulliLikelihood(3)(logits).log_prob(x), expected, **EXACT)


@pytest.mark.parametrize(("p", "log_normaliser"), [(0.5, math.log(2)), (0.1, 1.010339), (0.01, 1.545198)])
def test_continuous_bernoulli_normaliser(p: float, log_normaliser: float) -> None:
    logits = torch.full((1, 1), p, dtype=torch.float64).logit()
    at_zero = ContinuousBernoulliLikelihood(1)(logits).log_prob(torch.zeros(1, 1, dtype=torch.float64))
    assert at_zero.item() - math.log(1 - p) == pytest.approx(log_normaliser, abs=1e-6)


@pytest.mark.parametrize("name", sorted(Likelihood.registry))
def test_nan_is_outside_every_support(name: str) -> None:
    likelihood = Likelihood.registry[name].example()
    x = likelihood(torch.zeros(5, likelihood.num_outputs)).sample()
    x[3, 1] = math.nan
    with pytest.raises(ProbvaeError, match=r"1 of 5 rows contain NaN or infinity \(first: row 3\)"):
        likelihood.check_support(x)


def test_grey_data_are_refused_with_three_ways_out() -> None:
    with pytest.raises(SupportError, match=r"'fixed'.*'fresh'.*continuous-bernoulli"):
        BernoulliLikelihood(2).check_support(torch.tensor([[0.0, 0.5]]))
    for likelihood in (ContinuousBernoulliLikelihood(2), BernoulliLikelihood(2, allow_grey=True)):
        with pytest.raises(SupportError, match=r"values in \[0, 1\], got 0 to 2"):
            likelihood.check_support(torch.tensor([[0.0, 2.0]]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StandardNormalPrior(0), "latent_dim: expected an integer >= 1, got 0"),
        (lambda: StandardNormalPrior(2.0), "latent_dim: expected an integer >= 1, got 2.0"),
        (lambda: LinearDecoder(2, 0), "data_dim: expected an integer >= 1, got 0"),
        (lambda: MLPDecoder(2, 3, hidden=(0,)), "hidden: expected an integer >= 1, got 0"),
        (lambda: MLPDecoder(2, 3, activation="rely"), "Did you mean 'relu'"),
        (lambda: GaussianLikelihood(3, variance=0), "variance: expected a finite number > 0, got 0"),
        (lambda: GaussianLikelihood(3, variance=-1.0), "variance: expected a finite number > 0, got -1.0"),
        (lambda: GaussianLikelihood(3, variance=math.nan), "variance: expected a finite number > 0, got nan"),
        (lambda: GaussianLikelihood(3, variance="lernt"), "unknown variance 'lernt'"),
        (lambda: GaussianLikelihood(3, initial_variance=1e-7), "expected more than minimum_variance"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_decoder_must_fit_prior_and_likelihood() -> None:
    with pytest.raises(ShapeError, match="expected latent_dim=3"):
        LatentModel(StandardNormalPrior(3), LinearDecoder(2, 4), GaussianLikelihood(4))
    with pytest.raises(ShapeError, match="expected num_outputs=5"):
        LatentModel(StandardNormalPrior(2), LinearDecoder(2, 4), GaussianLikelihood(4, variance="per-datum"))


def test_output_of_any_module_is_checked() -> None:
    model = LatentModel(StandardNormalPrior(2), torch.nn.Linear(2, 7), GaussianLikelihood(4))
    with pytest.raises(ShapeError, match=r"the decoder's output: expected trailing shape \(4,\), got \(3, 7\)"):
        model(num_data=3)
