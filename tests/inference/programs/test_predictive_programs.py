"""More of Pyro's tools on the programs as they are: posterior predictive, forward draws, blocked and scaled sites."""

import copy
import pickle

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch.distributions import kl_divergence
from torch.testing import assert_close

from tests.support import example_a
from tests.support.vaes import exact_vae

F64 = {"dtype": torch.float64}


def test_posterior_predictive_by_uncondition() -> None:
    """x is observed by the guide and drawn by the model: mean W m + b, covariance W S W' + c I, for each datum."""
    vae, num = exact_vae(), 20_000
    predictive = Predictive(poutine.uncondition(vae.model), guide=vae.guide, num_samples=num, parallel=True)
    drawn = predictive(example_a.X)["x"].reshape(num, 2, 3)
    covariance = torch.linalg.inv(example_a.precision())
    mean = (example_a.X - example_a.B) @ example_a.W / example_a.C @ covariance @ example_a.W.T + example_a.B
    spread = example_a.W @ covariance @ example_a.W.T + example_a.C * torch.eye(3, **F64)
    assert ((drawn.mean(0) - mean).abs() < 5 * (spread.diagonal() / num).sqrt()).all()
    diagonal = spread.diagonal()
    error = ((diagonal[:, None] * diagonal + spread**2) / num).sqrt()
    for n in range(2):
        assert ((torch.cov(drawn[:, n].T) - spread).abs() < 5 * error).all()


def test_conditioning_on_a_latent_gives_the_likelihood() -> None:
    model, z = example_a.model(), torch.tensor([[0.3, -1.2]], **F64)
    drawn = Predictive(poutine.condition(model, data={"z": z}), num_samples=20_000, parallel=True)(num_data=1)["x"]
    mean = z @ example_a.W.T + example_a.B
    assert ((drawn.reshape(-1, 3).mean(0) - mean[0]).abs() < 5 * (example_a.C / 20_000) ** 0.5).all()


def test_a_scaled_program_scales_the_loss() -> None:
    vae = exact_vae()
    scaled = [poutine.scale(program, scale=0.25) for program in (vae.model, vae.guide)]
    assert -Trace_ELBO().loss(*scaled, example_a.X) == pytest.approx(-8.611317002448297 / 4, abs=1e-10)


def test_svi_trains_what_it_is_given_and_nothing_else() -> None:
    """The guide alone: a model whose parameters are frozen stays bit for bit, and says nothing of them."""
    vae = exact_vae()
    vae.model.requires_grad_(False)
    with torch.no_grad():
        vae.guide.loc.bias += 0.5
    kept = {name: tensor.clone() for name, tensor in vae.model.state_dict().items()}
    posterior = exact_vae()(example_a.X)

    def gap() -> float:
        return kl_divergence(vae(example_a.X), posterior).mean().item()

    start, loss = gap(), Trace_ELBO(num_particles=10, vectorize_particles=True)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), loss)
    for _ in range(400):
        svi.step(example_a.X)
    assert gap() < 0.05 * start
    assert all(torch.equal(kept[name], tensor) for name, tensor in vae.model.state_dict().items())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda vae: pickle.loads(pickle.dumps(vae))], ids=["copy", "pickle"])
def test_programs_can_be_copied_after_training(clone) -> None:
    """What tells SVI of a parameter must not stick to the parameter itself."""
    vae = exact_vae()
    SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(example_a.X)
    twin, z = clone(vae), torch.randn(2, 2, **F64)
    assert_close(twin(example_a.X).log_prob(z), vae(example_a.X).log_prob(z), rtol=0, atol=0)
