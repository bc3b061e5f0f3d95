"""The contracts of the components, for the authors of new ones: each check raises AssertionError with the reason.

    from probvae.testing import check_prior

    def test_my_prior():
        check_prior(MyPrior.example())

A contract is no oracle: a wrong formula can be a density too. Write the formula out by hand as well.
"""

import copy

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from probvae._seed import isolated_seed
from probvae.inference.encoders import Encoder
from probvae.inference.guides import Guide
from probvae.inference.objectives import Objective
from probvae.models import Decoder, LatentModel, Likelihood, Prior
from probvae.vae import VAE

# Standard errors between an estimate and the truth: one false alarm in two million checks
NUM_SIGMAS = 5.0
NUM_SAMPLES = 50_000


def check_prior(prior: Prior) -> None:
    """Shapes, dtype, a finite gradient for every parameter, and total mass one."""
    with isolated_seed(0):
        p = prior()
        z = p.sample(torch.Size((7, 3)))
        assert p.batch_shape == (), f"batch_shape: expected (), got {tuple(p.batch_shape)}"
        _same("event_shape", tuple(p.event_shape), (prior.latent_dim,))
        _same("sample shape", tuple(z.shape), (7, 3, prior.latent_dim))
        log_prob = p.log_prob(z)
        _same("log_prob shape", tuple(log_prob.shape), (7, 3))
        check_gradients(prior, log_prob)
        _check_mass(prior(), torch.Size(), prior.latent_dim, z)


def check_likelihood(likelihood: Likelihood) -> None:
    """Shapes, dtype, gradients for parameters and decoder outputs, and that its own draws lie in its support."""
    with isolated_seed(0):
        parameters = torch.randn(6, likelihood.num_outputs, dtype=_dtype(likelihood)).requires_grad_()
        p = likelihood(parameters)
        x = p.sample()
        _same("batch_shape", tuple(p.batch_shape), (6,))
        _same("event_shape", tuple(p.event_shape), (likelihood.data_dim,))
        likelihood.check_support(x)
        log_prob = p.log_prob(x)
        _same("log_prob shape", tuple(log_prob.shape), (6,))
        check_gradients(likelihood, log_prob)
        assert parameters.grad is not None, "the decoder's outputs get no gradient"
        assert parameters.grad.isfinite().all(), "the decoder's outputs get a gradient that is not finite"
        _same("mean shape", tuple(p.mean.shape), (6, likelihood.data_dim))


def check_decoder(decoder: Decoder) -> None:
    """Shapes for any number of leading dimensions, dtype, and gradients."""
    with isolated_seed(0):
        z = torch.randn(4, 5, decoder.latent_dim, dtype=_dtype(decoder))
        output = decoder(z)
        _same("output shape", tuple(output.shape), (4, 5, decoder.num_outputs))
        torch.testing.assert_close(decoder(z[1]), output[1])
        _same("dtype", output.dtype, _dtype(decoder))
        check_gradients(decoder, output)


def check_encoder(encoder: Encoder) -> None:
    """Shapes, dtype, and gradients."""
    with isolated_seed(0):
        features = encoder(torch.randn(4, encoder.data_dim, dtype=_dtype(encoder)))
        _same("output shape", tuple(features.shape), (4, encoder.num_features))
        check_gradients(encoder, features)


def check_guide(guide: Guide, data_dim: int = 3) -> None:
    """Shapes, dtype, gradients through reparameterised draws, mass one for every datum, and rows that stay apart."""
    with isolated_seed(0):
        x = torch.randn(4, data_dim, dtype=_dtype(guide))
        q = guide.distribution(x)
        _same("batch_shape", tuple(q.batch_shape), (4,))
        _same("event_shape", tuple(q.event_shape), (guide.latent_dim,))
        z = q.rsample() if q.has_rsample else q.sample()
        _same("sample shape", tuple(z.shape), (4, guide.latent_dim))
        check_gradients(guide, q.log_prob(z.detach()))
        alone = guide.distribution(x[2:3]).log_prob(z[2:3].detach())
        torch.testing.assert_close(alone, guide.distribution(x).log_prob(z.detach())[2:3], rtol=1e-4, atol=1e-4)
        _check_mass(guide.distribution(x), torch.Size((4,)), guide.latent_dim, z)


def check_objective(objective: Objective, vae: VAE | None = None) -> None:
    """(N,) finite nats per datum, gradients for every parameter, and a step's loss that is minus their mean."""
    vae = copy.deepcopy(vae) if vae is not None else VAE.example()
    with isolated_seed(0):
        x = torch.randn(6, vae.model.data_dim, dtype=_dtype(vae))
        with isolated_seed(1):
            value = objective(vae.model, vae.guide, x)
        _same("shape", tuple(value.shape), (6,))
        with isolated_seed(1):
            step = objective.step_loss(vae.model, vae.guide, x)
        torch.testing.assert_close(step.loss, -value.mean(), rtol=1e-4, atol=1e-4)
        check_gradients(vae, value)


def check_pair(model: LatentModel, guide: Guide) -> None:
    """The guide's sites are the model's, in shape and support."""
    with isolated_seed(0):
        x = model(num_data=5).detach()
        z = guide.distribution(x).sample()
        _same("log p(z) shape", tuple(model.prior().log_prob(z).shape), (5,))


def check_gradients(module: nn.Module, values: Tensor) -> None:
    """Every parameter of ``module`` gets a finite gradient from the sum of ``values``."""
    if not any(parameter.requires_grad for parameter in module.parameters()) and not values.requires_grad:
        return
    values.sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert parameter.grad.isfinite().all(), f"{name} gets a gradient that is not finite"
        parameter.grad = None


def _check_mass(p: dist.TorchDistribution, batch: torch.Size, latent_dim: int, like: Tensor) -> None:
    """The integral of the density, by importance sampling from a wide Student t, is one."""
    wide = dist.StudentT(3.0, like.new_zeros(latent_dim), like.new_full((latent_dim,), 2.0)).to_event(1)
    z = wide.sample(torch.Size((NUM_SAMPLES, *[1] * len(batch))))
    with torch.no_grad():
        mass = (p.log_prob(z) - wide.log_prob(z)).exp()
    error = mass.std(0) / NUM_SAMPLES**0.5
    off = (mass.mean(0) - 1).abs() / error
    assert (off < NUM_SIGMAS).all(), f"total mass: expected 1, got {mass.mean(0)} +- {error}"


def _dtype(module: nn.Module) -> torch.dtype:
    tensors = [*module.parameters(), *module.buffers()]
    floating = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    return floating[0] if floating else torch.get_default_dtype()


def _same(what: str, got: object, expected: object) -> None:
    assert got == expected, f"{what}: expected {expected}, got {got}"
