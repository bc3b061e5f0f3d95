"""Latent usage and the predictive check take every registered guide, prior and likelihood."""

import json

import pytest
import torch
from torch import nn

import probvae
from probvae.diagnostics import latent_usage, predictive_check
from probvae.errors import ArgumentError
from probvae.inference import Guide
from probvae.inference.encoders import LinearEncoder
from probvae.inference.evaluation.simulation import simulate_pairs
from probvae.models import GaussianLikelihood, LatentModel, Likelihood, LinearDecoder, Prior, StandardNormalPrior
from probvae.models.priors import ConditionalNormalPrior


def check_both(vae: probvae.VAE, x: torch.Tensor) -> None:
    usage = latent_usage(vae, x, num_samples=3, num_permutations=9)
    prediction = predictive_check(vae, x, num_replicates=9, num_simulated=20, num_samples=5, num_draws=100)
    for result in (usage, prediction):
        json.dumps(result.summary(), allow_nan=False)
        assert all(0 <= test.p_value <= 1 for test in result.tests())
        assert all(verdict.message for verdict in result.verdicts())
    assert usage.kl.isfinite().all()
    assert usage.dimension_kl.shape == (len(x), vae.model.latent_dim)
    assert prediction.replicated.isfinite().all()


def small_guide(latent_dim: int, data_dim: int) -> Guide:
    return probvae.DiagonalGuide(LinearEncoder(data_dim), latent_dim)


@pytest.mark.parametrize("name", sorted(Guide.all_registered()))
def test_guides(name: str) -> None:
    guide, x = Guide.named(name).example(), torch.randn(4, 3)
    if name == "exact":
        vae = probvae.VAE(guide.model, guide)
    else:
        model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3))
        vae = probvae.VAE(model, guide.start_from(x))
    check_both(vae, x)


def test_a_guide_beyond_the_priors_support_is_refused() -> None:
    model = LatentModel(probvae.UniformHypercubePrior(2), LinearDecoder(2, 3), GaussianLikelihood(3))
    with pytest.raises(ArgumentError, match=r"inside the prior's support.*ConstrainedGuide"):
        latent_usage(probvae.VAE(model, small_guide(2, 3)), torch.randn(6, 3))


@pytest.mark.parametrize("name", sorted(set(Prior.all_registered()) - {"uniform-hypercube"}))
def test_priors(name: str) -> None:
    prior = Prior.named(name).example()
    if isinstance(prior, ConditionalNormalPrior):
        pytest.skip("its test is in test_latent_usage")
    model = LatentModel(prior, LinearDecoder(2, 3), GaussianLikelihood(3))
    check_both(probvae.VAE(model, small_guide(2, 3)), torch.randn(6, 3))


@pytest.mark.parametrize("name", sorted(Likelihood.all_registered()))
def test_likelihoods(name: str) -> None:
    likelihood = Likelihood.named(name).example()
    decoder: nn.Module = LinearDecoder(2, likelihood.num_outputs)
    vae = probvae.VAE(LatentModel(StandardNormalPrior(2), decoder, likelihood), small_guide(2, 3))
    check_both(vae, simulate_pairs(vae, 6).x)
