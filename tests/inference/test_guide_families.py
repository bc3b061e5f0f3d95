"""Oracles of the guide families beyond the diagonal and the full one. Their contracts: test_guides.py."""

import pytest
import torch
from torch.distributions import (
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
)
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError
from probvae.inference import Guide, LinearEncoder, MLPEncoder, analytic_kl
from probvae.inference.guides import LowRankGuide
from probvae.inference.objectives import AnalyticKLObjective

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.1 + 0.5 * torch.randn_like(parameter))


def output(head: torch.nn.Linear, guide: Guide, x: torch.Tensor) -> torch.Tensor:
    return guide.encoder(x) @ head.weight.T + head.bias


def scale_of(raw: torch.Tensor) -> torch.Tensor:
    return torch.exp(10 * torch.tanh(raw / 10))


def random_low_rank(batch: int, d: int, rank: int) -> LowRankMultivariateNormal:
    return LowRankMultivariateNormal(torch.randn(batch, d), torch.randn(batch, d, rank), torch.rand(batch, d) + 0.2)


def as_full(q: LowRankMultivariateNormal) -> MultivariateNormal:
    return MultivariateNormal(q.loc, q.cov_factor @ q.cov_factor.mT + torch.diag_embed(q.cov_diag))


def test_low_rank_guide_is_the_normal_of_its_heads(double: None) -> None:
    guide = LowRankGuide(MLPEncoder(4, hidden=(5,)), latent_dim=3, rank=2)
    randomise(guide)
    x, z = torch.randn(6, 4), torch.randn(6, 3)
    factor = output(guide.factor, guide, x).reshape(6, 3, 2)
    covariance = factor @ factor.mT + torch.diag_embed(scale_of(output(guide.log_scale, guide, x)) ** 2)
    expected = MultivariateNormal(output(guide.loc, guide, x), covariance).log_prob(z)
    assert_close(guide.distribution(x).log_prob(z), expected, **EXACT)


def test_low_rank_factor_gets_a_gradient_at_the_start(double: None) -> None:
    """At V = 0 it would get none: that is why V begins away from zero."""
    torch.manual_seed(1)
    guide = LowRankGuide(LinearEncoder(3), latent_dim=2)
    posterior = MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))

    def gradient() -> torch.Tensor:
        kl = kl_divergence(guide.distribution(torch.zeros(1, 3)), posterior).sum()
        return torch.autograd.grad(kl, guide.factor.bias)[0]

    assert gradient().abs().max() > 0.01
    torch.nn.init.zeros_(guide.factor.bias)
    assert_close(gradient(), torch.zeros(2))


@pytest.mark.parametrize("rank", [1, 3])
def test_kl_of_low_rank_and_independent_normal_both_ways(rank: int, double: None) -> None:
    low_rank = random_low_rank(6, 4, rank)
    normal = Independent(Normal(torch.randn(4), torch.rand(4) + 0.3), 1).expand((6,))
    full = MultivariateNormal(normal.mean, scale_tril=torch.diag_embed(normal.stddev))
    assert_close(kl_divergence(low_rank, normal), kl_divergence(as_full(low_rank), full), **EXACT)
    assert_close(kl_divergence(normal, low_rank), kl_divergence(full, as_full(low_rank)), **EXACT)


def test_kl_of_low_rank_without_closed_form_is_an_error(double: None) -> None:
    laplace = Independent(Laplace(torch.zeros(6, 4), torch.ones(6, 4)), 1)
    for q, p in ((random_low_rank(6, 4, 2), laplace), (laplace, random_low_rank(6, 4, 2))):
        with pytest.raises(ArgumentError, match=r"there is none from .*objective='elbo'"):
            analytic_kl(q, p)


@pytest.mark.parametrize("covariance", [None, "diagonal", "full"])
def test_analytic_kl_serves_the_low_rank_guide(covariance: str | None, double: None) -> None:
    prior = probvae.NormalPrior(2, covariance) if covariance else probvae.StandardNormalPrior(2)
    randomise(prior)
    model = probvae.LatentModel(prior, probvae.LinearDecoder(2, 3), probvae.GaussianLikelihood(3))
    guide, x = LowRankGuide.example(), torch.randn(5, 3)
    kl = analytic_kl(guide.distribution(x), prior().expand((5,)))
    expected = kl_divergence(as_full(guide.distribution(x)), _full(prior()))
    assert_close(kl, expected, **EXACT)
    assert AnalyticKLObjective()(model, guide, x).shape == (5,)


def _full(p: torch.distributions.Distribution) -> MultivariateNormal:
    return p if isinstance(p, MultivariateNormal) else MultivariateNormal(p.mean, torch.diag_embed(p.variance))


def test_low_rank_guide_refuses_a_rank_that_there_is_not() -> None:
    for rank, message in {0: "rank: expected an integer >= 1", 3: "rank: expected at most latent_dim=2, got 3"}.items():
        with pytest.raises(ArgumentError, match=message):
            LowRankGuide(LinearEncoder(3), latent_dim=2, rank=rank)
