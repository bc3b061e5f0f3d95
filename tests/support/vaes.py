"""Small VAEs that many tests take: example A with the guides known for it, a network, and a bimodal posterior."""

import torch
from torch import Tensor, nn

import probvae
from probvae.inference import (
    DiagonalGuide,
    ExactGuide,
    FullCovarianceGuide,
    LinearEncoder,
    MLPEncoder,
)
from probvae.models import GaussianLikelihood, LatentModel, LinearGaussianModel, MLPDecoder, StandardNormalPrior
from tests.support import example_a


def exact_vae() -> probvae.VAE:
    """Example A, and a full-covariance guide whose weights are set to the exact posterior."""
    guide = FullCovarianceGuide(LinearEncoder(3), 2).double()
    covariance = torch.linalg.inv(example_a.precision())
    example_a.set_affine_guide(guide, torch.linalg.cholesky(covariance))
    return probvae.VAE(example_a.model(), guide)


def exact_guide_vae(variance: float = example_a.C) -> probvae.VAE:
    """Example A with c = ``variance``, and the guide that asks the model for its posterior."""
    model = LinearGaussianModel(example_a.W, example_a.B, variance)
    return probvae.VAE(model, ExactGuide(model))


def best_diagonal_vae() -> probvae.VAE:
    """Example A, and the diagonal guide with the largest bound."""
    guide = DiagonalGuide(LinearEncoder(3), 2).double()
    example_a.set_affine_guide(guide, torch.diag(example_a.precision().diagonal() ** -0.5))
    return probvae.VAE(example_a.model(), guide)


def network_vae(full: bool = True) -> probvae.VAE:
    """Networks in the decoder and the encoder, with random weights."""
    family = FullCovarianceGuide if full else DiagonalGuide
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, 3, hidden=(8,)), GaussianLikelihood(3))
    return probvae.VAE(model, family(MLPEncoder(3, hidden=(8,)), 2)).double()


class Absolute(nn.Module):
    """f(z) = |z|."""

    def forward(self, z: Tensor) -> Tensor:
        return z.abs()


def absolute_vae(c: float) -> probvae.VAE:
    """The bimodal model x ~ N(|z|, c), with an untrained guide."""
    model = LatentModel(StandardNormalPrior(1), Absolute(), GaussianLikelihood(1, variance=c))
    return probvae.VAE(model, DiagonalGuide(LinearEncoder(1), 1)).double()
