"""The optimum of each restricted family: in closed form, by optimisation, and as a guide."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError, NotLinearGaussianError, ShapeError
from probvae.inference import (
    best_diagonal_guide,
    bound,
    diagonal_gap,
    exact_log_evidence,
    exact_posterior,
    forward_diagonal_gap,
    isotropic_gap,
    posterior_precision,
)
from probvae.models import LinearGaussianModel, MixturePrior, NormalPrior
from tests.support import example_a

RHO = 0.2958644610950393


def random_precision(*batch: int, d: int = 4) -> Tensor:
    factor = torch.randn(*batch, d, d, dtype=torch.float64)
    return factor @ factor.mT + 0.3 * torch.eye(d, dtype=torch.float64)


def dense_kl(variance: Tensor, precision: Tensor) -> Tensor:
    """KL(N(0, diag v) || N(0, P^-1)) by torch."""
    zero = torch.zeros_like(variance)
    q = MultivariateNormal(zero, covariance_matrix=torch.diag_embed(variance))
    return kl_divergence(q, MultivariateNormal(zero, precision_matrix=precision))


def test_example_a() -> None:
    p = example_a.precision()
    assert diagonal_gap(p).item() == pytest.approx(0.04580320226440815, abs=1e-12)
    assert diagonal_gap(p).item() == pytest.approx(-0.5 * math.log(1 - RHO**2), abs=1e-12)
    assert isotropic_gap(p).item() == pytest.approx(0.04816879179427946, abs=1e-12)
    # in two dimensions both directions of the divergence cost the same
    assert forward_diagonal_gap(p).item() == pytest.approx(0.04580320226440815, abs=1e-12)


def test_gaps_are_the_divergences_at_the_optimum() -> None:
    p = random_precision(6)
    s = torch.linalg.inv(p)
    diagonal = p.diagonal(dim1=-2, dim2=-1)
    assert_close(diagonal_gap(p), dense_kl(1 / diagonal, p), rtol=1e-10, atol=1e-10)
    assert_close(isotropic_gap(p), dense_kl((1 / diagonal.mean(-1))[:, None].expand(6, 4), p), rtol=1e-10, atol=1e-10)
    zero, marginal = torch.zeros(6, 4, dtype=torch.float64), s.diagonal(dim1=-2, dim2=-1)
    forward = kl_divergence(MultivariateNormal(zero, s), MultivariateNormal(zero, torch.diag_embed(marginal)))
    assert_close(forward_diagonal_gap(p), forward, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("parameters", [2, 1], ids=["diagonal", "isotropic"])
def test_optimisation_finds_no_better_member(parameters: int) -> None:
    p = example_a.precision()
    log_variance = torch.zeros(parameters, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_variance], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = dense_kl(log_variance.exp().expand(2), p)
        value.backward()
        return value

    optimizer.step(loss)
    variance = [0.1366120219, 0.1190476190] if parameters == 2 else [0.1272264631]
    assert_close(log_variance.exp().detach(), torch.tensor(variance, dtype=torch.float64), rtol=0, atol=1e-9)
    gap = diagonal_gap(p) if parameters == 2 else isotropic_gap(p)
    assert loss().item() == pytest.approx(gap.item(), abs=1e-12)


def test_a_diagonal_precision_costs_nothing() -> None:
    p = torch.diag(torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64))
    assert diagonal_gap(p).item() == pytest.approx(0, abs=1e-14)
    assert forward_diagonal_gap(p).item() == pytest.approx(0, abs=1e-14)
    assert isotropic_gap(p) > 0.1


@pytest.mark.parametrize("function", [diagonal_gap, isotropic_gap, forward_diagonal_gap])
def test_bad_precision(function) -> None:
    with pytest.raises(ArgumentError, match="positive definite"):
        function(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ShapeError, match=r"\(\.\.\., d, d\), got \(2, 3\)"):
        function(torch.ones(2, 3))


def test_best_diagonal_guide_of_example_a() -> None:
    model = example_a.model()
    q = best_diagonal_guide(model).distribution(example_a.X)
    expected = torch.tensor([0.1366120219, 0.1190476190], dtype=torch.float64)
    assert_close(q.variance[0].detach(), expected, rtol=0, atol=1e-9)
    p = exact_posterior(model, example_a.X)
    assert_close(q.mean, p.mean, rtol=0, atol=1e-12)
    full = MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    assert_close(kl_divergence(full, p), diagonal_gap(example_a.precision()).expand(2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_best_diagonal_guide_with_any_normal_prior(covariance: str) -> None:
    prior = NormalPrior(2, covariance).double()
    for parameter in prior.parameters():
        parameter.data = 0.3 + 0.6 * torch.randn_like(parameter)
    weight, variance = torch.randn(5, 2, dtype=torch.float64), torch.rand(5, dtype=torch.float64) + 0.1
    model, x = LinearGaussianModel(weight, variance=variance, prior=prior), torch.randn(7, 5, dtype=torch.float64)
    q, p = best_diagonal_guide(model).distribution(x), exact_posterior(model, x)
    assert_close(q.mean, p.mean, rtol=1e-11, atol=1e-11)
    assert_close(q.variance, (1 / posterior_precision(model).diagonal()).expand(7, 2), rtol=1e-11, atol=1e-11)


def test_bound_of_the_best_diagonal_guide() -> None:
    """The total gap of a datum is the approximation gap of the family: a linear encoder leaves no amortisation gap."""
    model, num = example_a.model(), 40_000
    vae = probvae.VAE(model, best_diagonal_guide(model))
    gap = exact_log_evidence(model, example_a.X) - bound(vae, example_a.X, num_samples=num).elbo
    assert ((gap - 0.04580320226440815).abs() < 4 * RHO / num**0.5).all()


def test_best_diagonal_guide_is_saved(tmp_path) -> None:
    model = example_a.model()
    vae = probvae.VAE(model, best_diagonal_guide(model))
    vae.save(tmp_path / "vae.safetensors")
    loaded = probvae.load(tmp_path / "vae.safetensors")
    z = torch.randn(2, 2, dtype=torch.float64)
    assert torch.equal(loaded(example_a.X).log_prob(z), vae(example_a.X).log_prob(z))


def test_best_diagonal_guide_says_when_there_is_none() -> None:
    weight = torch.eye(2, dtype=torch.float64)
    with pytest.raises(NotLinearGaussianError, match="MixturePrior has 2 components"):
        best_diagonal_guide(LinearGaussianModel(weight, prior=MixturePrior(2, 2)))
    with pytest.raises(ArgumentError, match=r"posterior scales within exp\(\+-10\)"):
        best_diagonal_guide(LinearGaussianModel(weight, variance=1e-12))


def test_full_covariance_kl_contains_the_diagonal_one() -> None:
    mean, scale = torch.randn(6, 4, dtype=torch.float64), torch.rand(6, 4, dtype=torch.float64) + 0.2
    zero = torch.zeros(6, 4, dtype=torch.float64)
    prior = Independent(Normal(zero, torch.ones_like(zero)), 1)
    factor = torch.diag_embed(scale) + torch.randn(6, 4, 4, dtype=torch.float64).tril(-1)
    ours = kl_divergence(MultivariateNormal(mean, scale_tril=factor), prior)
    expected = 0.5 * (factor.square().sum((-2, -1)) + mean.square().sum(-1) - 4 - 2 * scale.log().sum(-1))
    assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    diagonal = kl_divergence(MultivariateNormal(mean, scale_tril=torch.diag_embed(scale)), prior)
    assert_close(diagonal, kl_divergence(Independent(Normal(mean, scale), 1), prior), rtol=1e-12, atol=1e-12)


def test_kl_from_a_diagonal_to_a_full_normal() -> None:
    q = Independent(Normal(torch.randn(6, 4, dtype=torch.float64), torch.rand(6, 4, dtype=torch.float64) + 0.2), 1)
    p = MultivariateNormal(torch.randn(6, 4, dtype=torch.float64), precision_matrix=random_precision(6))
    error = p.loc - q.mean
    squared = torch.einsum("ni,nij,nj->n", error, p.precision_matrix, error)
    trace = (p.precision_matrix.diagonal(dim1=-2, dim2=-1) * q.variance).sum(-1)
    log_det = -torch.logdet(p.precision_matrix) - q.variance.log().sum(-1)
    assert_close(kl_divergence(q, p), 0.5 * (trace + squared - 4 + log_det), rtol=1e-11, atol=1e-11)
