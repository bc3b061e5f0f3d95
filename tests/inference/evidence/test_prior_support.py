"""Angles and bounded latents: the evidence is right or comes from the next rung, at once, with the real reason."""

import math
import time
from typing import Any, Self

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError
from probvae.inference import Guide
from probvae.inference.evidence.log_evidence import best_method, log_evidence
from probvae.inference.evidence.prior_support import is_everywhere, repeats, support_of
from probvae.inference.evidence.quadrature import QuadratureError, quadrature
from probvae.models import GaussianLikelihood, LatentModel, Prior
from probvae.models.priors import DistributionPrior


class Waves(nn.Module):
    """f(z) = A (cos z, sin z)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * d, 3).double()

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.linear(torch.cat([z.cos(), z.sin()], -1))
        return out


class SomeGuide(Guide):
    """The prior's own family, with parameters of the data."""

    def __init__(self, d: int, kind: str) -> None:
        super().__init__(d)
        self.linear, self.kind = nn.Linear(3, 2 * d).double(), kind

    def distribution(self, x: Tensor) -> Any:
        a, b = self.linear(x).chunk(2, -1)
        q = {
            "angle": lambda: dist.VonMises(a, b.exp() + 0.5),
            "unit": lambda: dist.Beta(a.exp() + 1, b.exp() + 1),
            "positive": lambda: dist.Gamma(a.exp() + 1, b.exp() + 0.5),
            "real": lambda: dist.Normal(a, b.exp()),
        }[self.kind]()
        return q.to_event(1)

    @classmethod
    def example(cls) -> Self:
        return cls(2, "angle")


def prior_of(kind: str, d: int) -> Any:
    one = torch.ones(d).double()
    return {
        "angle": dist.VonMises(0.7 * one, 1.3 * one),
        "unit": dist.Beta(2 * one, 3 * one),
        "positive": dist.Gamma(2 * one, one),
        "real": dist.Normal(0 * one, one),
    }[kind].to_event(1)


def pair(kind: str, d: int, prior: Any = None) -> probvae.VAE:
    torch.manual_seed(d)
    prior = prior or DistributionPrior(prior_of(kind, d))
    return probvae.VAE(LatentModel(prior, Waves(d), GaussianLikelihood(3, variance=0.5)).double(), SomeGuide(d, kind))


def by_prior_draws(model: LatentModel, x: Tensor, num: int = 200_000) -> tuple[Tensor, Tensor]:
    """log mean p(x|z) over draws of the prior, and its standard error."""
    torch.manual_seed(0)
    z = model.prior().sample((num,))
    weight = torch.stack([model.likelihood(model.decode(z)).log_prob(row) for row in x]).exp()
    return weight.mean(1).log(), weight.std(1) / weight.mean(1) / math.sqrt(num)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kind", ["angle", "unit", "positive"])
@torch.no_grad()
def test_auto_is_right_and_soon(kind: str, d: int) -> None:
    vae, x, start = pair(kind, d), torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double(), time.time()
    found = log_evidence(vae, x, num_samples=20_000)
    assert time.time() - start < 20
    assert found.method == ("quadrature" if d <= 2 else "importance")
    expected, error = by_prior_draws(vae.model, x)
    assert ((found.value - expected).abs() <= 4 * (error.square() + found.standard_error.square()).sqrt()).all()


@torch.no_grad()
def test_angles_against_a_trapezoid() -> None:
    """A periodic integrand: the trapezoidal rule on the circle is exact to rounding."""
    vae, x = pair("angle", 1), torch.randn(5, 3).double()
    z = torch.linspace(-math.pi, math.pi, 2001, dtype=torch.float64)[:-1, None]
    log_joint = torch.stack([vae.model.log_joint(row.expand(len(z), 3), z) for row in x])
    expected = torch.logsumexp(log_joint, 1) + math.log(2 * math.pi / 2000)
    assert_close(quadrature(vae.model, x, tolerance=1e-9).log_evidence, expected, rtol=0, atol=1e-9)


class Turned(Prior):
    """An angle that is wrapped in a transform, whose family nobody knows."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.latent_dim = d

    def forward(self) -> Any:
        base = dist.VonMises(torch.zeros(self.latent_dim).double(), torch.ones(self.latent_dim).double())
        return dist.TransformedDistribution(base, [AffineTransform(0.0, 2.0)]).to_event(1)

    @classmethod
    def example(cls) -> Self:
        return cls(2)


@pytest.mark.parametrize("d", [1, 2, 3])
@torch.no_grad()
def test_an_unknown_periodic_density_goes_to_the_next_rung_at_once(d: int) -> None:
    vae, x, start = pair("angle", d, Turned(d)), torch.randn(4, 3).double(), time.time()
    found = log_evidence(vae, x, num_samples=20_000)
    assert found.method == "importance"
    assert time.time() - start < 10
    if d < 3:
        with pytest.raises(QuadratureError, match="goes on there, as that of an angle does"):
            quadrature(vae.model, x)


@pytest.mark.parametrize("kind", ["angle", "unit", "positive"])
def test_annealing_is_refused_with_the_reason(kind: str) -> None:
    vae = pair(kind, 3)
    assert best_method(vae) == "importance"
    with pytest.raises(ArgumentError, match=r"^method: 'annealed' moves through all of R\^d.*support"):
        log_evidence(vae, torch.zeros(2, 3).double(), "annealed")


def test_a_value_outside_the_support_is_no_overflow() -> None:
    vae = probvae.VAE(pair("unit", 1).model, SomeGuide(1, "real"))
    x = torch.randn(50, 3).double()
    for compute in (probvae.elbo, lambda vae, x: log_evidence(vae, x, "importance", num_samples=100)):
        with pytest.raises(ArgumentError, match=r"^model: expected values of z inside the support.*Interval"):
            compute(vae, x)


@pytest.mark.parametrize("name", sorted(set(Prior.registry) - {"conditional-normal"}))
def test_registered_priors_vanish_beyond_their_draws(name: str) -> None:
    prior = Prior.registry[name].example()
    with torch.no_grad(), dist.validation_enabled(False):
        assert not repeats(prior())


def test_ends() -> None:
    like = torch.zeros(2).double()
    for kind, ends in {"angle": (-math.pi, math.pi), "unit": (0, 1), "positive": (0, math.inf)}.items():
        found = support_of(prior_of(kind, 2), like)
        assert found.lower.tolist() == [ends[0]] * 2
        assert found.upper.tolist() == [ends[1]] * 2
        assert not is_everywhere(pair(kind, 2).model)
    assert is_everywhere(pair("real", 2).model)
    mixed = support_of(prior_of("angle", 2).expand([3]), like)
    assert mixed.upper.tolist() == [math.pi] * 2


@pytest.mark.parametrize("d", [1, 2, 3])
def test_angles_of_a_program(d: int) -> None:
    """Its total gap is that of the same pair written with classes."""
    vae, x = pair("angle", d), torch.randn(5, 3, generator=torch.Generator().manual_seed(2)).double()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior_of("angle", d))
            pyro.sample("x", dist.Normal(vae.model.decoder(z), 0.5**0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", vae.guide.distribution(x))

    program = probvae.program_vae(model, guide, x)
    with torch.no_grad():
        own, other = log_evidence(program, x, num_samples=20_000), log_evidence(vae, x, num_samples=20_000)
    assert own.method == other.method == ("quadrature" if d <= 2 else "importance")
    tolerance = 1e-4 if d <= 2 else 4 * float((own.standard_error + other.standard_error).max())
    assert_close(own.value.double(), other.value.double(), rtol=0, atol=tolerance)
