"""Numbers of a given VAE: what they are, and what data they refuse."""

import math

import pytest
import torch
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError, DataError, FloorWarning, ShapeError
from probvae.inference import (
    DiagonalGuide,
    FullCovarianceGuide,
    LinearEncoder,
    MLPEncoder,
    bound,
    fit,
    optimal_variance,
    plug_in_loss,
    posterior_mean,
    posterior_scale,
    reconstruct,
    reconstruction_error,
)
from probvae.inference.pair import VAE
from probvae.models import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    GaussianLikelihood,
    LatentModel,
    Likelihood,
    LinearDecoder,
    MixturePrior,
    MLPDecoder,
    Prior,
    StandardNormalPrior,
)

DIM = 4
EXACT = {"rtol": 1e-12, "atol": 1e-12}
F64 = {"dtype": torch.float64}


def make(
    likelihood: Likelihood | None = None, decoder: torch.nn.Module | None = None, prior: Prior | None = None
) -> probvae.VAE:
    likelihood = likelihood or GaussianLikelihood(DIM, variance=0.3)
    model = LatentModel(
        prior or StandardNormalPrior(2), decoder or MLPDecoder(2, likelihood.num_outputs, (5,)), likelihood
    )
    vae = probvae.VAE(model, FullCovarianceGuide(MLPEncoder(DIM, hidden=(6,)), 2)).double()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return vae


def test_means_and_scales_are_the_guides() -> None:
    vae, x = make(), torch.randn(7, DIM, **F64)
    features = vae.guide.encoder(x)
    mean = features @ vae.guide.loc.weight.T + vae.guide.loc.bias
    assert_close(posterior_mean(vae, x), mean, **EXACT)
    covariance = vae.guide.distribution(x).covariance_matrix
    assert_close(posterior_scale(vae, x), covariance.diagonal(dim1=1, dim2=2).sqrt(), **EXACT)
    assert_close(reconstruct(vae, x), vae.model.decoder(mean), **EXACT)
    expected = (x - vae.model.decoder(mean)).square().sum(1) / DIM
    assert_close(reconstruction_error(vae, x), expected, **EXACT)
    assert not posterior_mean(vae, x).requires_grad


def test_reconstruction_is_the_likelihoods_mean_not_its_parameter() -> None:
    z = torch.randn(7, 2, **F64)
    x = torch.rand(7, DIM, **F64)
    vae = make(BernoulliLikelihood(DIM))
    assert_close(reconstruct(vae, x), torch.sigmoid(vae.model.decoder(posterior_mean(vae, x))), **EXACT)
    vae = make(ContinuousBernoulliLikelihood(DIM))
    p = torch.sigmoid(vae.model.decoder(posterior_mean(vae, x)))
    expected = p / (2 * p - 1) + 1 / (2 * torch.atanh(1 - 2 * p))  # Loaiza-Ganem and Cunningham, equation 8
    assert_close(reconstruct(vae, x), expected, rtol=1e-9, atol=1e-9)
    per_datum = make(GaussianLikelihood(DIM, variance="per-datum"))
    assert reconstruct(per_datum, x).shape == (7, DIM)
    assert z.shape == (7, 2)


def test_bound_is_the_sum_of_its_parts_and_unbiased() -> None:
    """Against an average of the formula over independent draws, by hand."""
    vae, x = make(), torch.randn(3, DIM, **F64)
    parts = bound(vae, x, num_samples=20_000)
    assert_close(parts.elbo, parts.log_likelihood - parts.kl, rtol=1e-10, atol=1e-10)
    q = vae.guide.distribution(x)
    z = q.sample((20_000,))
    f = vae.model.decoder(z)
    log_x = -(x - f).square().sum(-1) / 0.6 - DIM / 2 * math.log(2 * math.pi * 0.3)
    log_w = log_x - 0.5 * z.square().sum(-1) - math.log(2 * math.pi) - q.log_prob(z)
    error = log_w.std(0) * math.sqrt(2 / 20_000)
    assert ((parts.elbo - log_w.mean(0)).abs() < 5 * error).all()
    standard = torch.distributions.MultivariateNormal(torch.zeros(2, **F64), torch.eye(2, **F64)).expand((3,))
    kl = torch.distributions.kl_divergence(torch.distributions.MultivariateNormal(q.loc, q.covariance_matrix), standard)
    spread = (q.log_prob(z) - standard.log_prob(z)).std(0) / math.sqrt(20_000)
    assert ((parts.kl - kl).abs() < 5 * spread).all()


def test_plug_in_loss_is_written_out() -> None:
    vae, x = make(), torch.randn(7, DIM, **F64)
    q = vae.guide.distribution(x)
    factor, mean = q.scale_tril, q.mean
    kl = 0.5 * (
        factor.square().sum((1, 2)) + mean.square().sum(1) - 2 - 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
    )
    squared = (x - vae.model.decoder(mean)).square().sum(1)
    expected = squared / 0.6 + DIM / 2 * math.log(2 * math.pi * 0.3) + kl
    assert_close(plug_in_loss(vae, x), expected, **EXACT)


def test_plug_in_loss_needs_a_closed_form() -> None:
    vae = make(prior=MixturePrior(2, 3))
    with pytest.raises(ArgumentError, match=r"no.* from \w*MultivariateNormal to MixtureSameFamily"):
        plug_in_loss(vae, torch.randn(7, DIM, **F64))


@pytest.mark.parametrize("function", [posterior_mean, posterior_scale, reconstruct, reconstruction_error, plug_in_loss])
def test_bad_data(function) -> None:
    vae, x = make(), torch.randn(9, DIM, **F64)
    spoilt = x.clone()
    spoilt[3, 1] = math.nan
    with pytest.raises(DataError, match=r"x: 1 of 9 rows contain NaN or infinity \(first: row 3\)"):
        function(vae, spoilt)
    with pytest.raises(ShapeError, match="x: expected 4 columns, got 3"):
        function(vae, x[:, :3])
    with pytest.raises(ShapeError, match=r"x: expected shape \(N, D\)"):
        function(vae, x[0])
    with pytest.raises(DataError, match=r"expected a floating-point dtype, got torch\.int64"):
        function(vae, x.long())


def test_optimal_variance_is_a_gaussians() -> None:
    with pytest.raises(ArgumentError, match="expected a GaussianLikelihood, which has a variance, got Bernoulli"):
        optimal_variance(make(BernoulliLikelihood(DIM)), torch.rand(9, DIM, **F64).round())


class Curved(LinearDecoder):
    """Inherits LinearDecoder, and is not linear."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sin(2 * super().forward(z))


def expected_error(vae: VAE, x: torch.Tensor, num_samples: int) -> tuple[float, float]:
    """(1/D) E_x E_q ||x - f(z)||^2 by Monte Carlo, and the standard error of a one-draw estimate of it."""
    z = vae.guide.distribution(x).sample((num_samples,))
    errors = (x - vae.model.decoder(z)).square().sum(-1) / DIM
    return errors.mean().item(), errors.var(0).sum().sqrt().item() / len(x)


@pytest.mark.parametrize("decoder", [LinearDecoder, Curved, lambda d, dim: MLPDecoder(d, dim, hidden=(5,))])
def test_optimal_variance_has_the_posteriors_spread(decoder) -> None:
    """A subclass of the linear decoder with a forward of its own must not get the linear one's trace term."""
    vae, x = make(GaussianLikelihood(DIM, variance="optimal"), decoder(2, DIM)), torch.randn(2000, DIM, **F64)
    with torch.no_grad():
        vae.guide.log_scale.bias += 0.5
        value, spread = expected_error(vae, x, 400)
    assert abs(optimal_variance(vae, x) - value) < 5 * spread * math.sqrt(1 + 1 / 400)


def test_optimal_variance_maximises_the_bound() -> None:
    """By the closed form of the ELBO in c, at fixed f and q: every other c gives less."""
    vae, x = make(GaussianLikelihood(DIM, variance="optimal"), LinearDecoder(2, DIM)), torch.randn(50, DIM, **F64)
    best = optimal_variance(vae, x)

    def mean_log_likelihood(c: float) -> float:
        return -0.5 * DIM * (math.log(2 * math.pi * c) + best / c)

    for c in (0.7 * best, 0.99 * best, 1.01 * best, 1.5 * best):
        assert mean_log_likelihood(c) < mean_log_likelihood(best)
    vae.model.likelihood.set_variance(best)
    parts = bound(vae, x, num_samples=4000)
    assert parts.log_likelihood.mean().item() == pytest.approx(mean_log_likelihood(best), abs=0.02)


def test_per_datum_variance_on_its_floor_says_so() -> None:
    """Data on a line that a linear decoder reaches: the decoder itself drives c down, datum by datum."""
    torch.manual_seed(1)
    x = torch.randn(200, 1).repeat(1, DIM)
    likelihood = GaussianLikelihood(DIM, "per-datum", initial_variance=0.03, minimum_variance=0.02)
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, DIM, num_outputs=DIM + 1), likelihood)
    vae = probvae.VAE(model, DiagonalGuide(LinearEncoder(DIM), 2))
    with pytest.warns(FloorWarning, match=r"variance: \d+ learned variance.*floor minimum_variance=0.02"):
        fit(vae, x, epochs=150, batch_size=50, learning_rate=3e-2, schedule="constant", progress=False)
