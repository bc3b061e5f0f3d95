"""Every objective, with each weight of the KL, warm-up, free bits and number of particles: value and gradient.

The truth is the objective's definition, written out by hand, and its numerical gradient. Where the objective's own
gradient is another estimate (stl, dreg), the two are equal in the mean.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import probvae
from probvae.inference import Objective
from tests.support.vaes import network_vae

DOUBLE = torch.float64
NUM_DATA, HALF_STEP = 6, 1e-5
BETAS, WARM_UPS, FREE_BITS, PARTICLES = (0.4, 1.0, 2.5), (1.0, 0.3), (0.0, 0.4, 1.5), (1, 3)
SAME_DRAWS = ["elbo", "analytic-kl", "iwae", "renyi", "mmd"]


def normal(value: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(value; mean, variance) for each entry."""
    return -0.5 * ((value - mean).square() / variance + variance.log() + math.log(2 * math.pi))


def definition(name: str, vae: probvae.VAE, x: Tensor, weight: float, free_bits: float, num: int) -> Tensor:
    """The loss () at the draws that torch's generator gives: z = g + h^(1/2) zeta, log w of K draws, mean over x."""
    q = vae.guide.distribution(x)
    mean, variance = q.mean, q.variance
    zeta = torch.randn(num, *mean.shape, dtype=DOUBLE)
    z = mean + variance.sqrt() * zeta
    c = vae.model.likelihood.variance(torch.zeros(()))
    log_likelihood = normal(x, vae.model.decoder(z), c).sum(-1)
    log_ratio = normal(z, mean, variance) - normal(z, torch.zeros(()), torch.ones(()))
    tempered = log_likelihood - weight * log_ratio.sum(-1)
    closed = 0.5 * (mean.square() + variance - 1) - 0.5 * variance.log()
    if name in ("elbo", "stl"):
        value, kl = tempered.mean(0), log_ratio.mean((0, 1))
    elif name == "analytic-kl":
        value, kl = log_likelihood.mean(0) - weight * closed.sum(-1), closed.mean(0)
    elif name in ("iwae", "dreg"):
        value, kl = torch.logsumexp(tempered, 0) - math.log(num), log_ratio.mean((0, 1))
    elif name == "renyi":
        alpha = Objective.registry[name]().alpha
        value = (torch.logsumexp((1 - alpha) * tempered, 0) - math.log(num)) / (1 - alpha)
        kl = log_ratio.mean((0, 1))
    else:
        u = torch.randn(num, *mean.shape, dtype=DOUBLE).flatten(0, 1)
        return weight * 100.0 * discrepancy(z.flatten(0, 1), u) - log_likelihood.mean()
    spared = (free_bits - kl).clamp(min=0).sum() if free_bits else 0.0
    return weight * spared - value.mean()


def discrepancy(z: Tensor, u: Tensor) -> Tensor:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([(-(a - row).square().sum(-1) / (2 * z.shape[1])).exp().mean() for row in b]).mean()

    return kernel(z, z) + kernel(u, u) - 2 * kernel(z, u)


def numerical(loss: Callable[[], Tensor], parameter: Tensor, entry: int, seed: int) -> float:
    """The central difference of ``loss`` in one entry of a parameter, at the same draws."""
    found, cell = [], parameter.data.view(-1)
    for sign in (1, -1):
        cell[entry] += sign * HALF_STEP
        torch.manual_seed(seed)
        with torch.no_grad():
            found.append(float(loss()))
        cell[entry] -= sign * HALF_STEP
    return (found[0] - found[1]) / (2 * HALF_STEP)


def made(name: str, beta: float, free_bits: float, num: int) -> Objective:
    options = {} if name == "mmd" else {"free_bits": free_bits}
    return Objective.registry[name](num_particles=num, beta=beta, **options)


def step(objective: Objective, vae: probvae.VAE, x: Tensor, warm_up: float, seed: int) -> tuple[float, list[Tensor]]:
    weight = warm_up if warm_up == 1 else torch.tensor(warm_up, dtype=DOUBLE)
    torch.manual_seed(seed)
    loss = objective.step_loss(vae.model, vae.guide, x, weight).loss
    parameters = list(vae.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    known = zip(parameters, found, strict=True)
    return float(loss.detach()), [torch.zeros_like(p) if gradient is None else gradient for p, gradient in known]


@pytest.mark.parametrize("num", PARTICLES)
@pytest.mark.parametrize("free_bits", FREE_BITS)
@pytest.mark.parametrize("warm_up", WARM_UPS)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("name", SAME_DRAWS)
def test_gradient_is_that_of_the_definition(name: str, beta: float, warm_up: float, free_bits: float, num: int) -> None:
    if name == "mmd" and free_bits:
        pytest.skip("mmd has no KL")
    torch.manual_seed(1)
    vae, x = network_vae(full=False), torch.randn(NUM_DATA, 3, dtype=DOUBLE)
    loss, gradients = step(made(name, beta, free_bits, num), vae, x, warm_up, seed=3)

    def by_hand() -> Tensor:
        return definition(name, vae, x, beta * warm_up, free_bits, num)

    torch.manual_seed(3)
    assert loss == pytest.approx(float(by_hand().detach()), rel=1e-12)
    for parameter, gradient in zip(vae.parameters(), gradients, strict=True):
        for entry in {0, parameter.numel() // 2, parameter.numel() - 1}:
            expected = numerical(by_hand, parameter, entry, seed=3)
            assert float(gradient.view(-1)[entry]) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_no_objective_is_left_out() -> None:
    assert {*SAME_DRAWS, "stl", "dreg"} == set(Objective.registry)


@pytest.mark.parametrize("num", PARTICLES)
@pytest.mark.parametrize("free_bits", FREE_BITS)
@pytest.mark.parametrize("warm_up", WARM_UPS)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("name", ["stl", "dreg"])
def test_gradient_has_the_mean_of_the_definition(
    name: str, beta: float, warm_up: float, free_bits: float, num: int
) -> None:
    """Sixteen minibatches of four data, each 600 times: the difference of the two gradients at the same draws."""
    torch.manual_seed(1)
    vae, x = network_vae(full=False), torch.randn(4, 3, dtype=DOUBLE).repeat(600, 1)
    objective, differences = made(name, beta, free_bits, num), []
    for seed in range(16):
        loss, gradients = step(objective, vae, x, warm_up, seed)
        torch.manual_seed(seed)
        by_hand = definition(name, vae, x, beta * warm_up, free_bits, num)
        assert loss == pytest.approx(float(by_hand.detach()), rel=1e-12)
        expected = torch.autograd.grad(by_hand, list(vae.parameters()), allow_unused=True)
        pairs = zip(gradients, expected, strict=True)
        differences.append(torch.cat([(one - (0 if two is None else two)).flatten() for one, two in pairs]))
    found = torch.stack(differences)
    error = found.std(0) / 4
    # as many standard errors as one entry in ten thousand is off with 15 degrees of freedom
    assert (found.mean(0).abs() <= 5.2 * error + 1e-12).all()
    # what is compared is not lost in noise: the differences are small beside the gradient
    assert float(error.max()) < 0.2 * float(torch.cat([g.flatten() for g in gradients]).abs().max())


@pytest.mark.parametrize("name", ["stl", "dreg"])
def test_the_models_gradient_is_that_of_the_definition(name: str) -> None:
    """The path derivative changes the guide's gradient alone."""
    torch.manual_seed(1)
    vae, x = network_vae(full=False), torch.randn(NUM_DATA, 3, dtype=DOUBLE)
    for beta, warm_up, free_bits, num in ((0.4, 1.0, 0.4, 3), (2.5, 0.3, 0.0, 1)):
        _, gradients = step(made(name, beta, free_bits, num), vae, x, warm_up, seed=3)
        torch.manual_seed(3)
        loss = definition(name, vae, x, beta * warm_up, free_bits, num)
        own = [number for number, (n, _) in enumerate(vae.named_parameters()) if n.startswith("model.")]
        expected = torch.autograd.grad(loss, [list(vae.parameters())[number] for number in own])
        assert own
        for number, gradient in zip(own, expected, strict=True):
            assert_close(gradients[number], gradient, rtol=1e-9, atol=1e-11)
