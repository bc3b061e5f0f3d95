"""Bounds of the distance to the posterior, against VIABEL's formulas and true distances."""

import math

import pytest
import torch
from torch.testing import assert_close

import probvae
from probvae.diagnostics.weights.distance_bounds import distance_bounds, wasserstein_bound
from probvae.inference import FullCovarianceGuide, LinearEncoder
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, StandardNormalPrior
from tests.support import example_a
from tests.support.vaes import best_diagonal_vae, exact_vae


def normal_d2(p: float, q: float) -> float:
    """D_2(N(0, p) || N(0, q)) = log(r / sqrt(2 r - 1)), r = q / p."""
    return math.log(q / p / math.sqrt(2 * q / p - 1))


@pytest.mark.parametrize(
    ("p", "q", "d2", "first", "second"), [(4.0, 16.0, 0.41333929, 5.7235, 8.9055), (2.5, 9.3, 0.38245940, None, 6.6316)]
)
def test_known_answers(p: float, q: float, d2: float, first: float | None, second: float) -> None:
    assert normal_d2(p, q) == pytest.approx(d2, abs=1e-6)
    exact, moments = torch.tensor(normal_d2(p, q)), torch.tensor([q, 3 * q**2])
    assert wasserstein_bound(exact, moments[1], 2).item() == pytest.approx(second, abs=1e-4)
    if first is not None:
        assert wasserstein_bound(exact, moments[0], 1).item() == pytest.approx(first, abs=1e-4)


def wide_vae(p: float, q: float) -> probvae.VAE:
    """One latent: the posterior is N(0, p) at x = 0, the guide N(0, q)."""
    decoder, prior, guide = LinearDecoder(1, 1), StandardNormalPrior(1), FullCovarianceGuide(LinearEncoder(1), 1)
    model = LatentModel(prior, decoder, GaussianLikelihood(1, variance=1.0))
    vae = probvae.VAE(model, guide).double()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        decoder.weight.fill_(math.sqrt(1 / p - 1))
        guide.log_scale.bias.copy_(example_a.raw_scale(torch.tensor([math.sqrt(q)], dtype=torch.float64)))
    return vae


def test_estimated_from_draws() -> None:
    p, q = 0.4, 1.6
    vae, x = wide_vae(p, q), torch.zeros(3, 1, dtype=torch.float64)
    bounds = distance_bounds(vae, x, num_samples=200_000)
    assert_close(bounds.d2, torch.full((3,), normal_d2(p, q), dtype=torch.float64), rtol=0, atol=0.01)
    expected = [
        wasserstein_bound(torch.tensor(normal_d2(p, q)), torch.tensor(m), r) for m, r in ((q, 1), (3 * q**2, 2))
    ]
    assert_close(bounds.wasserstein_1, expected[0].double().expand(3), rtol=0.02, atol=0)
    assert_close(bounds.wasserstein_2, expected[1].double().expand(3), rtol=0.02, atol=0)
    assert bounds.reliable.all()


def test_the_fourth_moment_is_that_of_the_norm() -> None:
    """E||z||^4 = d (d + 2) for N(0, I): 120 in ten dimensions, where the sum of fourth powers has 30."""
    model = LatentModel(StandardNormalPrior(10), LinearDecoder(10, 2), GaussianLikelihood(2))
    vae = probvae.VAE(model, FullCovarianceGuide(LinearEncoder(2), 10)).double()
    x = torch.zeros(1, 2, dtype=torch.float64)
    bounds = distance_bounds(vae, x, num_samples=50_000)
    q = vae.guide.distribution(x)
    covariance = q.covariance_matrix[0]
    moment = covariance.trace() ** 2 + 2 * (covariance @ covariance).trace()  # E||e||^4 of a normal
    assert_close(bounds.wasserstein_2[0], wasserstein_bound(bounds.d2[0], moment, 2), rtol=0.02, atol=0)
    assert wasserstein_bound(torch.tensor(math.log(2.0)), torch.tensor(120.0), 2).item() == pytest.approx(2 * 120**0.25)


def test_bounds_hold_and_vanish_for_an_exact_guide() -> None:
    vae = best_diagonal_vae()
    bounds = distance_bounds(vae, example_a.X)
    exact, q = probvae.exact_posterior(vae.model, example_a.X), vae.guide.distribution(example_a.X)
    assert ((q.variance.sqrt() - exact.variance.sqrt()).abs().amax(1) < bounds.wasserstein_2).all()
    perfect = distance_bounds(exact_vae(), example_a.X)
    assert (perfect.wasserstein_2 < 1e-3).all()
    assert perfect.summary()["num_reliable"] == 2
