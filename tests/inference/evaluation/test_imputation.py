"""Missing data: masked densities, encoders that read the mask, and imputation against the closed form."""

from pathlib import Path

import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError, ConfigError, DataError, ShapeError, SupportError
from probvae.inference import (
    DiagonalGuide,
    ExactGuide,
    FullCovarianceGuide,
    LinearEncoder,
    MaskedEncoder,
    MLPEncoder,
    elbo,
    exact_log_evidence,
    impute,
    impute_exact,
    optimal_variance,
    reconstruct,
    reconstruction_error,
)
from probvae.inference.evidence.log_evidence import log_evidence
from probvae.models import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    LatentModel,
    Likelihood,
    LinearDecoder,
    LinearGaussianModel,
    StandardNormalPrior,
)
from tests.support import example_a

NAN = torch.nan


def masked_model(c: float = example_a.C) -> LatentModel:
    model = example_a.model()
    return LatentModel(model.prior, model.decoder, GaussianLikelihood(3, variance=c), missing="mask").double()


X = torch.tensor([[0.8, NAN, 1.1], [NAN, 0.3, NAN], [0.2, 0.3, -0.4], [NAN, NAN, NAN]], dtype=torch.float64)


def marginal(x: torch.Tensor) -> torch.Tensor:
    """log p of the observed entries of each row, from the joint Gaussian."""
    covariance = example_a.W @ example_a.W.T + example_a.C * torch.eye(3, dtype=torch.float64)
    values = []
    for row in x:
        o = ~row.isnan()
        values.append(
            MultivariateNormal(example_a.B[o], covariance[o][:, o]).log_prob(row[o]) if o.any() else row.new_zeros(())
        )
    return torch.stack(values)


def test_evidence_of_the_observed_entries() -> None:
    vae = probvae.VAE(masked_model(), ExactGuide(masked_model()))
    vae = probvae.VAE(vae.model, ExactGuide(vae.model))
    expected = marginal(X)
    assert_close(exact_log_evidence(vae.model, X).detach(), expected, rtol=0, atol=1e-12)
    assert_close(elbo(vae, X), expected, rtol=0, atol=1e-12)
    assert_close(log_evidence(vae, X, "quadrature").value, expected, rtol=0, atol=1e-4)
    assert_close(log_evidence(vae, X, "importance").value, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(Likelihood.registry))
def test_missing_entries_add_nothing(name: str) -> None:
    """log p(x) with entries missing is that of the likelihood's entries one by one, without them."""
    likelihood = Likelihood.registry[name].example().double()
    parameters = torch.randn(5, likelihood.num_outputs, dtype=torch.float64)
    x = likelihood(parameters).sample()
    base = likelihood(parameters).base_dist.log_prob(x)
    missing = torch.rand(5, likelihood.data_dim) < 0.4
    likelihood.missing = "mask"
    holed = torch.where(missing, NAN, x)
    likelihood.check_data(holed)
    assert_close(likelihood(parameters).log_prob(holed), base.masked_fill(missing, 0).sum(-1), rtol=0, atol=1e-12)
    assert likelihood(parameters).expand((2, 5)).log_prob(holed).shape == (2, 5)
    parameters.requires_grad_()
    (gradient,) = torch.autograd.grad(likelihood(parameters).log_prob(holed).sum(), parameters)
    assert gradient.isfinite().all()


def test_missing_entries_do_not_touch_the_gradient() -> None:
    likelihood = GaussianLikelihood(3, variance=0.5)
    likelihood.missing = "mask"
    parameters = torch.randn(2, 3, requires_grad=True)
    x = torch.tensor([[1.0, NAN, 2.0], [NAN, NAN, 0.0]])
    (gradient,) = torch.autograd.grad(likelihood(parameters).log_prob(x).sum(), parameters)
    expected = torch.where(x.isnan(), 0.0, (x - parameters.detach()) / 0.5)
    assert_close(gradient, expected)


def test_encoder_sees_zeros_and_the_mask() -> None:
    encoder = MaskedEncoder(LinearEncoder(6), 3)
    expected = torch.tensor([[0.8, 0.0, 1.1, 1.0, 0.0, 1.0]], dtype=torch.float64)
    assert torch.equal(encoder(X[:1]), expected)
    assert torch.equal(MaskedEncoder(LinearEncoder(5), 3, num_masked=2)(X[:1])[0, 3:], expected[0, 3:5])


def test_encoder_that_does_not_read_the_mask() -> None:
    with pytest.raises(ConfigError, match="the encoder must read the mask, and LinearEncoder does not"):
        probvae.VAE(masked_model(), DiagonalGuide(LinearEncoder(3), 2))
    with pytest.raises(ShapeError, match=r"expected data_dim=6 \(x beside its mask\), got 3"):
        MaskedEncoder(LinearEncoder(3), 3)


def test_nan_is_refused_without_the_mask() -> None:
    with pytest.raises(DataError, match=r"3 of 4 rows contain NaN or infinity.*missing='mask'"):
        probvae.elbo(probvae.VAE.example(), X.float())


def test_what_is_observed_must_be_possible() -> None:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), BernoulliLikelihood(3), missing="mask")
    vae = probvae.VAE(model, DiagonalGuide(MaskedEncoder(LinearEncoder(6), 3), 2))
    with pytest.raises(SupportError, match="needs values 0 and 1"):
        elbo(vae, torch.tensor([[NAN, 0.5, 1.0]]))
    with pytest.raises(DataError, match="infinity"):
        elbo(vae, torch.tensor([[NAN, torch.inf, 1.0]]))


def exact_vae() -> probvae.VAE:
    model = masked_model()
    return probvae.VAE(model, ExactGuide(model))


def test_imputation_is_the_conditional() -> None:
    """With the exact posterior every weight is one, and the draws are those of the Gaussian conditional."""
    exact = impute_exact(example_a.model(), X, ~X.isnan())
    got = impute(exact_vae(), X, num_draws=20_000, num_samples=20_000)
    observed = ~X.isnan()
    assert torch.equal(got.draws[:, observed], X[observed].expand(20_000, -1))
    assert torch.equal(got.mean[observed], X[observed])
    assert_close(got.ess, torch.full((4,), 20_000.0, dtype=torch.float64))
    # the draws of z have an error, and choosing among them has another
    error = (2 * exact.variance / 20_000).sqrt()[~observed]
    assert ((got.draws.mean(0) - exact.mean)[~observed].abs() <= 4 * error).all()
    assert ((got.mean - exact.mean)[~observed].abs() <= 4 * error).all()
    assert_close(got.draws.var(0), exact.variance, rtol=0.06, atol=0)
    half = 1.6448536269514722 * exact.variance.sqrt()
    assert_close(got.lower, exact.mean - half, rtol=0, atol=0.05)
    assert_close(got.upper, exact.mean + half, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("num_draws", "interval"),
    [(100, 0.9), (19, 0.9), (5, 0.9), (1, 0.5), (30, 0.9), (100, 0.683), (50, 0.99), (9, 0.1)],
)
def test_intervals_have_the_probability_that_is_asked_for(num_draws: int, interval: float) -> None:
    """P(lower < x_m < upper) under the exact conditional, averaged over data, is interval to at most 0.002 more."""
    x = torch.randn(2000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x[:, 1] = NAN
    got = impute(exact_vae(), x, num_draws=num_draws, interval=interval, num_samples=2000)
    with torch.no_grad():
        exact = impute_exact(example_a.model(), x, ~x.isnan())
    p = torch.distributions.Normal(exact.mean[:, 1], exact.variance[:, 1].sqrt())
    covered = p.cdf(got.upper[:, 1]) - p.cdf(got.lower[:, 1])
    error = float(covered.std()) / 2000**0.5
    assert got.draws.shape == (num_draws, 2000, 3)
    assert interval - 4 * error < float(covered.mean()) < interval + 0.002 + 4 * error


def test_interval_that_would_take_too_many_draws() -> None:
    with pytest.raises(ArgumentError, match=r"interval: 0\.99999 lies between .* 199999 draws, got num_draws=100"):
        impute(exact_vae(), X, interval=0.99999)


def one_latent_vae(likelihood: Likelihood, scale: float) -> probvae.VAE:
    """One latent, a random linear decoder of all the likelihood's parameters, and a guide that is the prior."""
    torch.manual_seed(4)
    model = LatentModel(StandardNormalPrior(1), LinearDecoder(1, likelihood.num_outputs), likelihood, missing="mask")
    guide = DiagonalGuide(MaskedEncoder(LinearEncoder(2 * likelihood.data_dim), likelihood.data_dim), 1)
    vae = probvae.VAE(model, guide).double()
    with torch.no_grad():
        vae.model.decoder.weight.normal_().mul_(scale)
        vae.model.decoder.bias.normal_().mul_(0.3 * scale)
        for parameter in vae.guide.parameters():
            parameter.zero_()
        guide.log_scale.bias.copy_(example_a.raw_scale(torch.ones(1, dtype=torch.float64)))
    return vae


@pytest.mark.parametrize("name", sorted(set(Likelihood.registry) - {"discretized-logistic"}))
def test_mean_is_the_conditional_mean_for_every_likelihood(name: str) -> None:
    check_mean(Likelihood.registry[name].example(), 1.0)


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_mean_of_levels_and_categories(scale: float) -> None:
    """Where the mode, or the location, is far from the mean."""
    check_mean(DiscretizedLogisticLikelihood(3, num_levels=4, scale=0.4), scale)
    check_mean(CategoricalLikelihood(3, num_categories=5), scale)


def check_mean(likelihood: Likelihood, scale: float) -> None:
    """E[x_m|x_o] by a grid over z, with the mean of the values of x by p(x|z) as scipy or a sum has it."""
    vae = one_latent_vae(likelihood, scale)
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        p = vae.model.likelihood(vae.model.decode(z))
        x = vae.model.likelihood(vae.model.decode(z[2300:2301])).sample().repeat(2, 1)
        x[0, 1] = x[1, 2] = NAN
        log_joint = vae.model.prior().log_prob(z)[:, None] + p.expand((2, 4001)).log_prob(x[:, None]).T
        expected = torch.einsum("gn,gd->nd", log_joint.softmax(0), p.mean)
        second = torch.einsum("gn,gd->nd", log_joint.softmax(0), p.variance + p.mean.square())
    got = impute(vae, x, num_draws=2, num_samples=20_000)
    missing = x.isnan()
    error = ((second - expected.square()) / got.ess[:, None]).sqrt()
    assert ((got.mean - expected).abs() <= 4 * error)[missing].all()
    assert torch.equal(got.mean[~missing], x[~missing])
    assert torch.equal(got.point[~missing], x[~missing])
    if likelihood.measure == "probability":  # the point and the ends are values that x can have
        for filled in (got.point, got.lower, got.upper):
            likelihood.check_support(filled)


def test_mean_and_point_of_categories_by_brute_force() -> None:
    """Codes whose mode is 2 and whose mean is near 1: each is given where it is asked for."""
    likelihood = CategoricalLikelihood(2, num_categories=3)
    vae = one_latent_vae(likelihood, 0.0)
    probabilities = torch.tensor([[0.45, 0.05, 0.5], [0.2, 0.5, 0.3]], dtype=torch.float64)
    with torch.no_grad():
        vae.model.decoder.bias.copy_(probabilities.log().flatten())
    got = impute(vae, torch.tensor([[NAN, 1.0]], dtype=torch.float64), num_draws=400)
    assert_close(got.mean, torch.tensor([[1.05, 1.0]], dtype=torch.float64))
    assert got.point.tolist() == [[2.0, 1.0]]


def test_weights_correct_a_wrong_guide() -> None:
    torch.manual_seed(3)
    model = masked_model()
    guide = DiagonalGuide(MaskedEncoder(LinearEncoder(6), 3), 2).double()
    got = impute(probvae.VAE(model, guide), X, num_samples=50_000)
    exact = impute_exact(model, X, ~X.isnan())
    assert (got.ess < 45_000).all()
    assert ((got.mean - exact.mean).abs() <= 5 * (exact.variance / got.ess[:, None]).sqrt()).all()


def test_imputation_leaves_everything_as_it_was() -> None:
    vae, state = exact_vae(), torch.get_rng_state()
    first, second = impute(vae, X), impute(vae, X)
    assert torch.equal(first.draws, second.draws)
    assert torch.equal(state, torch.get_rng_state())


def test_imputation_needs_the_mask() -> None:
    with pytest.raises(ArgumentError, match="Build and fit it with missing='mask'"):
        impute(probvae.VAE.example(), torch.zeros(2, 3))
    with pytest.raises(ArgumentError, match="interval: expected a probability"):
        impute(exact_vae(), X, interval=90.0)


def test_evaluation_with_missing_entries(tmp_path: Path) -> None:
    vae = exact_vae()
    assert reconstruct(vae, X).isfinite().all()
    errors = (X - reconstruct(vae, X)).square()[:3]
    assert_close(reconstruction_error(vae, X)[:3], errors.nansum(1) / (~errors.isnan()).sum(1))
    x = vae.model(num_data=4000).detach()
    holed = torch.where(torch.rand(4000, 3) < 0.3, NAN, x)
    assert optimal_variance(vae, holed) == pytest.approx(example_a.C, rel=0.06)
    guide = FullCovarianceGuide(MaskedEncoder(MLPEncoder(6, hidden=(8,)), 3), 2).double()
    probvae.VAE(vae.model, guide).save(tmp_path / "vae.safetensors")
    again = probvae.load(tmp_path / "vae.safetensors")
    assert again.model.missing == "mask"
    assert torch.equal(again(X).mean, guide.distribution(X).mean)


@pytest.mark.slow
def test_trained_imputation_is_nearly_the_exact_one() -> None:
    """pPCA data with 30 % missing: the trained VAE's mean squared error within 2 % of the exact conditional mean's."""
    torch.manual_seed(0)
    num, held_out = 5000, slice(4000, None)
    weight, bias, c = torch.randn(10, 2), torch.randn(10), 0.3
    x = torch.randn(num, 2) @ weight.T + bias + c**0.5 * torch.randn(num, 10)
    observed = torch.rand(num, 10) > 0.3
    holed = torch.where(observed, x, NAN)
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 10), GaussianLikelihood(10), missing="mask")
    vae = probvae.VAE(model, FullCovarianceGuide(MaskedEncoder(MLPEncoder(20, hidden=(128, 128)), 10), 2))
    probvae.fit(vae, holed[:4000], epochs=150, learning_rate=2e-3, schedule="cosine", progress=False)
    truth = impute_exact(LinearGaussianModel(weight, bias, c), holed[held_out], observed[held_out]).mean
    trained = impute(vae, holed[held_out]).mean
    missing = ~observed[held_out]
    errors = [(mean - x[held_out])[missing].square().mean().item() for mean in (trained, truth)]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)
