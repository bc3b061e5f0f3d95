"""The model and the guide are honest Pyro programs, and the bound is exact where the guide is."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch.testing import assert_close

import probvae
from probvae import testing
from probvae.errors import ArgumentError
from probvae.inference import (
    Objective,
    bound,
    log_weights,
    plug_in_loss,
)
from probvae.models import GaussianLikelihood, Prior
from tests.support import example_a
from tests.support.vaes import best_diagonal_vae, exact_vae, network_vae


def test_exact_guide_makes_log_w_the_evidence_at_every_z() -> None:
    vae = exact_vae()
    z = 3 * torch.randn(100, 2, 2, dtype=torch.float64)  # not draws of the guide
    p = vae.model.likelihood(vae.model.decoder(z)).log_prob(example_a.X) + vae.model.prior().log_prob(z)
    log_w = p - vae.guide.distribution(example_a.X).log_prob(z)
    assert_close(log_w, example_a.LOG_P.expand(100, 2), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_trace_elbo_with_the_exact_guide_is_the_evidence(seed: int) -> None:
    vae = exact_vae()
    torch.manual_seed(seed)
    assert -Trace_ELBO().loss(vae.model, vae.guide, example_a.X) == pytest.approx(-8.611317002448297, abs=1e-10)
    assert_close(probvae.elbo(vae, example_a.X), example_a.LOG_P, rtol=0, atol=1e-10)


def test_bound_of_the_best_diagonal_guide() -> None:
    vae = best_diagonal_vae()
    num = 40_000
    terms = log_weights(vae.model, vae.guide, example_a.X[:1], num)
    values = bound(vae, example_a.X[:1], num_samples=num)
    p = example_a.precision()
    gap = 0.5 * (p.diagonal().log().sum() - torch.logdet(p)).item()
    assert gap == pytest.approx(0.04580320226440815, abs=1e-12)
    rho = 0.2958644610950393
    assert terms.log_weight.std().item() == pytest.approx(rho, rel=0.05)
    assert abs(values.elbo.item() - (-5.037948468714025 - gap)) < 5 * rho / num**0.5
    kl = terms.log_guide - terms.log_prior
    for draws, part, expected in (
        (terms.log_likelihood, values.log_likelihood, -3.88449058314407),
        (kl, values.kl, 1.1992610878343628),
    ):
        for mean in (draws.mean(), part[0]):
            assert abs(mean.item() - expected) < 5 * draws.std().item() / num**0.5


def test_plug_in_loss_is_optimistic_by_half_the_trace() -> None:
    x = example_a.X
    exact, diagonal = plug_in_loss(exact_vae(), x), plug_in_loss(best_diagonal_vae(), x)
    p = example_a.precision()
    kl_gap = 0.5 * (p.diagonal().log().sum() - torch.logdet(p))
    assert_close(
        -example_a.LOG_P - exact, torch.full((2,), 0.8599070324530884, dtype=torch.float64), rtol=0, atol=1e-10
    )
    off = 0.5 * (2 - 0.1366120219 - 0.1190476190)
    assert_close(-example_a.LOG_P + kl_gap - diagonal, torch.full((2,), off, dtype=torch.float64), rtol=0, atol=1e-9)


def test_squared_error_weight_and_negative_elbo_have_the_same_gradients() -> None:
    c, vae = 0.31, network_vae()
    vae.model.likelihood = GaussianLikelihood(3, variance=c).double()
    x = torch.randn(7, 3, dtype=torch.float64)
    torch.manual_seed(1)
    q = vae.guide.distribution(x)
    z = q.rsample()
    kl = (q.log_prob(z) - vae.model.prior().log_prob(z)).sum()
    rocca = (x - vae.model.decoder(z)).square().sum() / (2 * vae.model.likelihood.fixed_variance) + kl
    expected = torch.autograd.grad(rocca, list(vae.parameters()))
    torch.manual_seed(1)
    negative_elbo = -probvae.inference.ELBOObjective()(vae.model, vae.guide, x).sum()
    assert_close(torch.autograd.grad(negative_elbo, list(vae.parameters())), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", sorted(Objective.registry))
def test_objective_contract(name: str) -> None:
    testing.check_objective(Objective.registry[name].example())


PYRO = {"elbo": Trace_ELBO, "analytic-kl": TraceMeanField_ELBO}


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("name", PYRO)
def test_objectives_are_pyros(name: str, full: bool, num_particles: int) -> None:
    vae, x = network_vae(full), torch.randn(7, 3, dtype=torch.float64)
    pyros = PYRO[name](num_particles=num_particles, vectorize_particles=num_particles > 1, max_plate_nesting=1)
    ours = Objective.registry[name](num_particles=num_particles)
    torch.manual_seed(2)
    loss = pyros.differentiable_loss(vae.model, vae.guide, x)
    gradients = torch.autograd.grad(loss, list(vae.parameters()))
    torch.manual_seed(2)
    value = ours(vae.model, vae.guide, x)
    assert value.shape == (7,)
    assert_close(-value.sum(), loss, rtol=1e-12, atol=1e-12)
    assert_close(torch.autograd.grad(-value.sum(), list(vae.parameters())), gradients, rtol=1e-9, atol=1e-10)
    torch.manual_seed(2)
    step = ours.step_loss(vae.model, vae.guide, x)
    assert_close(step.loss * 7, loss, rtol=1e-12, atol=1e-12)


def test_kl_that_is_reported_is_the_analytic_one() -> None:
    vae, x = network_vae(), torch.randn(7, 3, dtype=torch.float64)
    q = vae.guide.distribution(x)
    exact = torch.distributions.kl_divergence(q, vae.model.prior().expand((7,))).mean()
    for particles in (1, 3):
        step = Objective.registry["analytic-kl"](particles).step_loss(vae.model, vae.guide, x)
        assert_close(step.kl, exact.detach(), rtol=1e-12, atol=1e-12)
    draws = torch.stack([Objective.registry["elbo"](50).step_loss(vae.model, vae.guide, x).kl for _ in range(40)])
    assert abs(draws.mean() - exact) < 5 * draws.std() / 40**0.5


class LaplaceForTest(Prior):
    """A prior that has no closed form of the KL from a normal guide."""

    latent_dim = 2

    def forward(self) -> pyro.distributions.TorchDistribution:
        zero = torch.zeros(2, dtype=torch.float64)
        return pyro.distributions.Laplace(zero, torch.ones_like(zero)).to_event(1)

    @classmethod
    def example(cls) -> "LaplaceForTest":
        return cls()


def test_analytic_kl_never_falls_back_silently() -> None:
    vae, x = network_vae(), torch.randn(7, 3, dtype=torch.float64)
    vae.model.prior = LaplaceForTest()
    objective = Objective.registry["analytic-kl"]()
    for call in (objective, objective.step_loss):
        with pytest.raises(ArgumentError, match=r"no.*from \w*MultivariateNormal.*objective='elbo'"):
            call(vae.model, vae.guide, x)


@pytest.mark.parametrize(
    "loss",
    [Trace_ELBO(), TraceMeanField_ELBO(), RenyiELBO(alpha=0.0, num_particles=3)],
    ids=lambda loss: type(loss).__name__,
)
def test_svi_trains_the_programs_as_they_are(loss: pyro.infer.ELBO) -> None:
    vae, x = network_vae(), torch.randn(50, 3, dtype=torch.float64) * 0.3 + 1
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), loss)
    losses = [svi.step(x) for _ in range(150)]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    assert all(not torch.equal(before[name], tensor) for name, tensor in vae.named_parameters())
    assert not pyro.get_param_store().keys()


def test_two_models_never_share_a_weight() -> None:
    one, two, x = network_vae(), network_vae(), torch.randn(20, 3, dtype=torch.float64)
    kept = {name: tensor.clone() for name, tensor in two.state_dict().items()}
    SVI(one.model, one.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
    assert all(torch.equal(kept[name], tensor) for name, tensor in two.state_dict().items())


def test_predictive() -> None:
    vae = exact_vae()
    drawn = Predictive(vae.model, num_samples=20_000, parallel=True)(num_data=1)
    assert drawn["z"].reshape(20_000, 2).shape == (20_000, 2)
    x = drawn["x"].reshape(20_000, 3)
    covariance = example_a.W @ example_a.W.T + example_a.C * torch.eye(3, dtype=torch.float64)
    diagonal = covariance.diagonal()
    error = ((diagonal[:, None] * diagonal + covariance**2) / 20_000).sqrt()
    assert ((torch.cov(x.T) - covariance).abs() < 5 * error).all()
    posterior = Predictive(vae.model, guide=vae.guide, num_samples=4000, parallel=True)(example_a.X)["z"]
    exact = torch.linalg.inv(example_a.precision())
    mean = posterior.reshape(4000, 2, 2).mean(0)
    expected = (example_a.X - example_a.B) @ example_a.W / example_a.C @ exact
    assert ((mean - expected).abs() < 5 * (exact.diagonal() / 4000).sqrt()).all()


@pytest.mark.slow
def test_nuts_finds_the_exact_posterior() -> None:
    model, x = example_a.model(), example_a.X[:1]
    mcmc = MCMC(NUTS(model), num_samples=1500, warmup_steps=300, disable_progbar=True)
    mcmc.run(x)
    z = mcmc.get_samples()["z"].reshape(-1, 2)
    covariance = torch.linalg.inv(example_a.precision())
    ess = mcmc.diagnostics()["z"]["n_eff"].min().item()
    mean = torch.tensor([-0.021331204, 0.153510523], dtype=torch.float64)
    assert ((z.mean(0) - mean).abs() < 4 * (covariance.diagonal() / ess).sqrt()).all()
    error = covariance.diagonal() * math.sqrt(2 / ess)
    assert ((z.var(0) - covariance.diagonal()).abs() < 5 * error).all()


def test_trace_condition_and_replay() -> None:
    vae, x = exact_vae(), example_a.X
    trace = poutine.trace(vae.model).get_trace(x)
    assert {name for name, site in trace.nodes.items() if site["type"] == "sample"} == {"data", "z", "x"}
    assert trace.nodes["x"]["is_observed"]
    assert trace.nodes["z"]["value"].shape == (2, 2)
    conditioned = poutine.trace(poutine.condition(vae.model, data={"x": x})).get_trace(num_data=2)
    assert_close(conditioned.nodes["x"]["value"], x)
    replayed = poutine.trace(poutine.replay(vae.model, trace=trace)).get_trace(x)
    assert_close(replayed.nodes["z"]["value"], trace.nodes["z"]["value"])
    assert_close(replayed.log_prob_sum(), trace.log_prob_sum())


def test_log_weights_of_a_program_written_by_hand() -> None:
    """Two latent sites in one plate, no component of ours."""

    def model(x: torch.Tensor) -> None:
        with pyro.plate("rows", x.shape[0]):
            a = pyro.sample("a", pyro.distributions.Normal(0.3, 1.5))
            b = pyro.sample("b", pyro.distributions.Normal(a, 0.7))
            pyro.sample("obs", pyro.distributions.Normal(a + b, 0.4), obs=x[:, 0])

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("a", pyro.distributions.Normal(x[:, 0] / 2, 0.9))
            pyro.sample("b", pyro.distributions.Normal(x[:, 0] / 3, 1.1))

    x = torch.randn(4, 1, dtype=torch.float64)
    weights = log_weights(model, guide, x, num_samples=50_000)
    assert weights.log_weight.shape == (50_000, 4)
    evidence = torch.logsumexp(weights.log_weight, 0) - math.log(50_000)
    # a + b = 2a + N(0, 0.49): mean 0.6, variance 4 * 1.5^2 + 0.49 + 0.16
    exact = torch.distributions.Normal(0.6, math.sqrt(9 + 0.49 + 0.16)).log_prob(x[:, 0])
    relative = (weights.log_weight - evidence).exp()
    assert ((evidence - exact).abs() < 5 * relative.std(0) / 50_000**0.5).all()


def test_evaluation_leaves_every_parameter_as_it_is() -> None:
    vae, x = network_vae(), torch.randn(9, 3, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    probvae.elbo(vae, x, num_samples=3)
    plug_in_loss(vae, x)
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_chunks_do_not_change_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from probvae.inference.evaluation import memory, row_tiles

    vae, x = exact_vae(), torch.randn(40, 3, dtype=torch.float64)
    whole = probvae.elbo(vae, x, num_samples=2)  # the guide is exact, so the draws do not matter
    monkeypatch.setattr(memory, "MEMORY_LIMIT", 2000)
    assert len(list(row_tiles.tiles_within_limit(vae, x, 2))) > 3
    assert_close(probvae.elbo(vae, x, num_samples=2), whole, rtol=0, atol=1e-10)
