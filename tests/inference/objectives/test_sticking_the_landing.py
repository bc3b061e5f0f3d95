"""The path-derivative gradient: zero at the exact posterior, unbiased elsewhere."""

import pyro
import pytest
import torch
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError
from probvae.inference import DiagonalGuide, FullCovarianceGuide, LinearEncoder, Objective, fit
from tests.support import example_a
from tests.support.vaes import best_diagonal_vae, exact_vae, network_vae

STL, ELBO = Objective.registry["stl"], Objective.registry["elbo"]


def test_gradient_is_zero_at_the_exact_guide() -> None:
    vae = exact_vae()
    for particles in (1, 5):
        value = STL(particles)(vae.model, vae.guide, example_a.X)
        gradients = torch.autograd.grad(value.sum(), list(vae.guide.parameters()), allow_unused=True)
        assert max(gradient.abs().max() for gradient in gradients) < 1e-12
        noisy = torch.autograd.grad(ELBO(particles)(vae.model, vae.guide, example_a.X).sum(), vae.guide.loc.bias)
        assert noisy[0].abs().max() > 1e-3


def test_value_is_the_bound() -> None:
    vae, x = network_vae(), torch.randn(7, 3, dtype=torch.float64)
    torch.manual_seed(1)
    expected = ELBO(3)(vae.model, vae.guide, x)
    torch.manual_seed(1)
    assert_close(STL(3)(vae.model, vae.guide, x), expected, rtol=1e-12, atol=1e-12)


def test_gradient_is_unbiased() -> None:
    """Its mean over many draws is the gradient of the ELBO; the model's parameters get the same gradient as ever."""
    vae = best_diagonal_vae()
    with torch.no_grad():
        vae.guide.loc.bias += 0.3
    x = example_a.X[:1].expand(20_000, 3)
    means = {}
    for name, objective in (("stl", STL()), ("elbo", ELBO())):
        # a zero offset for each row: its gradient is that row's gradient of the mean
        offset = torch.zeros(len(x), 2, dtype=torch.float64, requires_grad=True)
        guide = _Shifted(vae.guide, offset)
        (rows,) = torch.autograd.grad(objective(vae.model, guide, x).sum(), offset)
        means[name] = rows.mean(0), rows.std(0) / len(x) ** 0.5
    difference = means["stl"][0] - means["elbo"][0]
    assert (difference.abs() < 5 * (means["stl"][1].square() + means["elbo"][1].square()).sqrt()).all()
    assert (means["stl"][0].abs() > 10 * means["stl"][1]).all()  # far from the optimum


class _Shifted(torch.nn.Module):
    """A guide whose mean is moved by a parameter a row."""

    def __init__(self, guide: torch.nn.Module, offset: torch.Tensor) -> None:
        super().__init__()
        self.guide = guide
        self.offset = torch.nn.Parameter(offset.detach())
        self._moved = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.guide.distribution(x)
        # functional_call puts a detached tensor in the place of the parameter; otherwise take the leaf of the test
        offset = self._moved if isinstance(self.offset, torch.nn.Parameter) else self.offset
        moved = pyro.distributions.Normal(q.base_dist.loc + offset, q.base_dist.scale).to_event(1)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", moved)


def variances(objective: Objective, num: int = 200_000) -> tuple[float, float]:
    """Var of the gradient in the mean and in log s, of z ~ N(0,1), x|z ~ N(z, 0.5), x = 1.3, at the exact guide."""
    c, x = 0.5, torch.full((num, 1), 1.3, dtype=torch.float64)
    variance = c / (1 + c)
    mean = torch.full((num,), 1.3 / (1 + c), dtype=torch.float64)
    log_scale = torch.full((num,), 0.5, dtype=torch.float64) * torch.tensor(variance, dtype=torch.float64).log()
    guide = _RowGuide(mean, log_scale)

    def model(rows: torch.Tensor) -> None:
        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        with pyro.plate("data", len(rows)):
            z = pyro.sample("z", pyro.distributions.Normal(zero, one))
            pyro.sample("x", pyro.distributions.Normal(z, one * c**0.5), obs=rows[:, 0])

    gradients = torch.autograd.grad(objective(model, guide, x).sum(), [guide.mean, guide.log_scale])
    return gradients[0].var().item(), gradients[1].var().item()


class _RowGuide(torch.nn.Module):
    def __init__(self, mean: torch.Tensor, log_scale: torch.Tensor) -> None:
        super().__init__()
        self.mean, self.log_scale = torch.nn.Parameter(mean), torch.nn.Parameter(log_scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", pyro.distributions.Normal(self.mean, self.log_scale.exp()))


def test_gradient_variances_of_the_toy_model() -> None:
    assert variances(ELBO()) == pytest.approx((3, 2), rel=0.03)
    assert variances(Objective.registry["analytic-kl"]()) == pytest.approx((1.33333, 1.139259), rel=0.03)
    assert max(variances(STL())) < 1e-25


def test_guide_that_it_cannot_serve() -> None:
    vae, x = exact_vae(), example_a.X
    with pytest.raises(ArgumentError, match=r"expected a guide that is an nn.Module.*objective='elbo'"):
        STL()(vae.model, lambda rows: vae.guide(rows), x)

    class Discrete(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            with pyro.plate("data", len(rows)):
                return pyro.sample("z", pyro.distributions.Poisson(torch.ones(2).double()).to_event(1))

    with pytest.raises(ArgumentError, match=r"site 'z'.*objective='elbo'"):
        STL()(vae.model, Discrete(), x)


def fitted_kl(guide: torch.nn.Module, objective: str, **options: float) -> torch.Tensor:
    """Mean KL(q || posterior) after a fit of the guide alone to example A's model."""
    model = example_a.model()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    torch.manual_seed(1)
    x = model(num_data=2000).detach()
    vae = probvae.VAE(model, guide.double())
    fit(vae, x, objective=objective, batch_size=100, schedule="cosine", progress=False, **options)
    covariance = torch.linalg.inv(example_a.precision())
    mean = (x - example_a.B) @ example_a.W / example_a.C @ covariance
    exact = torch.distributions.MultivariateNormal(mean, covariance.expand(len(x), 2, 2))
    q = vae(x)
    q = (
        torch.distributions.MultivariateNormal(q.mean, torch.diag_embed(q.variance))
        if isinstance(guide, DiagonalGuide)
        else q
    )
    return torch.distributions.kl_divergence(q, exact).mean()


@pytest.mark.slow
def test_fit_with_stl_reaches_the_exact_posterior() -> None:
    assert fitted_kl(FullCovarianceGuide(LinearEncoder(3), 2), "stl", epochs=100, learning_rate=2e-2) < 1e-6


@pytest.mark.slow
def test_fit_with_the_default_comes_near() -> None:
    assert fitted_kl(FullCovarianceGuide(LinearEncoder(3), 2), "elbo", epochs=100, learning_rate=1e-2) < 1e-3


@pytest.mark.slow
def test_diagonal_fit_loses_exactly_the_gap_of_its_family() -> None:
    kl = fitted_kl(DiagonalGuide(LinearEncoder(3), 2), "stl", epochs=150, learning_rate=1e-2)
    assert kl.item() == pytest.approx(0.04580320226440815, abs=1e-4)
