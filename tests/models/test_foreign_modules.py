"""Decoders of plain torch modules, and distributions with parameters as priors: they serve every function."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import probvae
from probvae import VAE, DiagonalGuide, GaussianLikelihood, LatentModel, MLPEncoder, StandardNormalPrior
from probvae.errors import ArgumentError
from probvae.inference import Objective, bound, reconstruct

DECODERS: dict[str, Callable[[], nn.Module]] = {
    "unflatten": lambda: nn.Sequential(
        nn.Linear(2, 32), nn.Unflatten(1, (2, 4, 4)), nn.ConvTranspose2d(2, 1, 1), nn.Flatten()
    ),
    "batch norm": lambda: nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 16)),
}


def pair(decoder: nn.Module) -> VAE:
    model = LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(16, variance=0.5))
    return VAE(model, DiagonalGuide(MLPEncoder(16, hidden=(8,)), 2))


FUNCTIONS: dict[str, Callable[[VAE, Tensor], object]] = {
    "elbo": lambda vae, x: probvae.elbo(vae, x, num_samples=3),
    "importance": lambda vae, x: probvae.log_evidence(vae, x, method="importance"),
    "quadrature": lambda vae, x: probvae.log_evidence(vae, x[:4], method="quadrature"),
    "annealed": lambda vae, x: probvae.log_evidence(vae, x[:3], method="annealed"),
    "gap": lambda vae, x: probvae.posterior_gap(vae, x[:6]),
    "importance diagnostic": lambda vae, x: probvae.importance_diagnostic(vae, x, num_samples=100),
    "reconstruct": reconstruct,
    "sample": lambda vae, x: probvae.sample(vae, 3),
    "latent usage": lambda vae, x: probvae.latent_usage(vae, x),
    "predictive check": lambda vae, x: probvae.predictive_check(vae, x, num_replicates=20),
    "calibration": lambda vae, x: probvae.calibration(vae, num_simulations=40),
}


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_take_decoders_of_plain_modules(function: str, name: str) -> None:
    FUNCTIONS[function](pair(DECODERS[name]()).eval(), torch.randn(20, 16))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("objective", sorted(Objective.registry))
def test_objectives_train_decoders_of_plain_modules(objective: str, name: str) -> None:
    vae = pair(DECODERS[name]())
    before = [parameter.clone() for parameter in vae.model.decoder.parameters()]
    probvae.fit(vae, torch.randn(60, 16), epochs=1, batch_size=20, objective=objective, progress=False)
    moved = [not torch.equal(a, b) for a, b in zip(before, vae.model.decoder.parameters(), strict=True)]
    # A bias in front of a batch norm has no effect.
    assert sum(moved) >= len(moved) - 1


def test_leading_dimensions_are_those_of_one_row_at_a_time() -> None:
    vae, z = pair(DECODERS["unflatten"]()), torch.randn(5, 7, 2)
    assert_close(vae.model.decode(z), torch.stack([vae.model.decoder(rows) for rows in z]))


def test_parameters_of_a_distribution_are_trained(double: None) -> None:
    """As those of the same prior written by hand, step for step; on the traced path too, and after .float()."""
    loc = nn.Parameter(torch.tensor([0.5, -1.0]))
    scale = nn.Parameter(torch.tensor(0.8))  # one for both dimensions: an expanded view
    prior = torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1)
    x = torch.randn(64, 16)
    vae = pair(nn.Linear(2, 16))
    vae = VAE(LatentModel(prior, vae.model.decoder, vae.model.likelihood), vae.guide)
    assert {id(loc), id(scale)} <= {id(parameter) for parameter in vae.parameters()}
    torch.manual_seed(3)
    z = vae.guide.distribution(x).rsample()
    expected = torch.autograd.grad(torch.distributions.Normal(loc, scale).log_prob(z).sum(), (loc, scale))
    for _ in range(2):  # the second time nothing of the first one's graph is left
        found = torch.autograd.grad(vae.model.prior().log_prob(z.detach()).sum(), (loc, scale))
        assert_close(found, expected)
    for compile in (False, "graph"):
        before = loc.detach().clone(), scale.detach().clone()
        probvae.fit(vae, x, epochs=2, batch_size=32, learning_rate=0.05, compile=compile, progress=False)
        assert (loc != before[0]).all()
        assert scale != before[1]
        assert_close(vae.model.prior().mean, loc)
    assert vae.float().model.prior().mean.dtype == torch.float32
    assert bound(vae, x.float()).elbo.isfinite().all()


def test_numbers_computed_from_a_parameter_are_refused() -> None:
    log_scale = nn.Parameter(torch.zeros(2))
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), log_scale.exp()), 1)
    with pytest.raises(ArgumentError, match=r"prior: .*computed from one.*NormalPrior"):
        LatentModel(prior, nn.Linear(2, 16), GaussianLikelihood(16))
