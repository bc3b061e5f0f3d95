"""Quadrature against closed forms written out here, and against brute force."""

import math
from copy import deepcopy

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.testing import assert_close

from probvae.errors import ArgumentError, DataError, ShapeError
from probvae.inference import DiagonalGuide, MLPEncoder
from probvae.inference.evidence import quadrature as quadrature_module
from probvae.inference.evidence.log_joint import LogJoint, double_copy
from probvae.inference.evidence.quadrature import QuadratureError, QuadratureResult, posterior_grid, quadrature
from probvae.models import (
    BernoulliLikelihood,
    GaussianLikelihood,
    LatentModel,
    LinearDecoder,
    MLPDecoder,
    Prior,
    StandardNormalPrior,
)
from probvae.models.likelihoods import ContinuousBernoulliLikelihood
from tests.support.vaes import Absolute


class Fixed(Prior):
    """Any distribution as a prior; ``make`` builds it in the dtype of the buffer."""

    like: Tensor

    def __init__(self, latent_dim, make) -> None:
        super().__init__()
        self.latent_dim, self.make = latent_dim, make
        self.register_buffer("like", torch.zeros(()))

    def forward(self):
        return self.make(self.like)

    @classmethod
    def example(cls):
        raise NotImplementedError


class Constant(nn.Module):
    """A decoder that says nothing about z."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value

    def forward(self, z: Tensor) -> Tensor:
        return torch.full((len(z), 3), self.value, dtype=z.dtype)


def gaussian(data_dim: int, variance) -> GaussianLikelihood:
    """A Gaussian likelihood whose c is exact in float64; the constructor rounds it to the default dtype."""
    likelihood = GaussianLikelihood(data_dim).double()
    likelihood.minimum_variance = 0.0
    likelihood.log_variance.data = torch.as_tensor(variance, dtype=torch.float64).log()
    return likelihood


def linear_model(weight: Tensor, bias: Tensor, variance, prior: Prior | None = None) -> LatentModel:
    decoder = LinearDecoder(weight.shape[1], weight.shape[0]).double()
    decoder.weight.data, decoder.bias.data = weight, bias
    return LatentModel(prior or StandardNormalPrior(weight.shape[1]), decoder, gaussian(len(weight), variance))


def absolute_model(variance: float, dim: int = 1) -> LatentModel:
    return LatentModel(StandardNormalPrior(dim), Absolute(), gaussian(dim, variance))


def example_a(prior: Prior | None = None) -> LatentModel:
    weight = torch.tensor([[1.0, 0.5], [0.3, 1.2], [-0.7, 0.4]], dtype=torch.float64)
    return linear_model(weight, torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64), 0.25, prior)


X_A = torch.tensor([[0.8, -0.5, 1.1], [0.2, 0.3, -0.4]], dtype=torch.float64)


def linear_truth(weight: Tensor, bias: Tensor, variance: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Evidence, posterior mean and covariance; Woodbury's form in long double is not needed at these sizes."""
    d = weight.shape[1]
    precision = torch.eye(d, dtype=torch.float64) + weight.T @ (weight / variance[:, None])
    covariance = torch.linalg.inv(precision)
    mean = (x - bias) / variance @ weight @ covariance
    residual = x - bias - mean @ weight.T
    squared = (residual.square() / variance).sum(1) + mean.square().sum(1)
    log_det = precision.logdet() + variance.log().sum()
    evidence = -0.5 * (squared + log_det + len(bias) * math.log(2 * math.pi))
    return evidence, mean, covariance.expand(len(x), d, d)


def absolute_truth(c: float, x: Tensor) -> Tensor:
    """log p(x) = log 2 + log N(x; 0, 1 + c) + log Phi(m / s), one dimension each."""
    log_normal = -0.5 * (x.square() / (1 + c) + math.log(2 * math.pi * (1 + c)))
    return math.log(2) + log_normal + torch.special.log_ndtr(x / (1 + c) / math.sqrt(c / (1 + c)))


def check_honest(result: QuadratureResult, truth: Tensor, tolerance: float) -> None:
    error = (result.log_evidence - truth).abs()
    assert result.converged.all()
    assert (result.error <= tolerance).all()
    assert (error <= result.error.clamp(min=1e-12)).all(), (error / result.error).max()


def test_example_a() -> None:
    result = quadrature(example_a(), X_A, tolerance=1e-12)
    expected = torch.tensor([-5.037948468714025, -3.573368533734272], dtype=torch.float64)
    assert_close(result.log_evidence, expected, rtol=0, atol=1e-12)
    mean = torch.tensor([-0.021331204, 0.153510523], dtype=torch.float64)
    covariance = torch.tensor([[0.1497176752, -0.0413505960], [-0.0413505960, 0.1304682599]], dtype=torch.float64)
    assert_close(result.mean[0], mean, rtol=0, atol=1e-9)
    assert_close(result.covariance[0], covariance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-9])
def test_linear_models_at_random(latent_dim: int, scale: float, tolerance: float) -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        weight = torch.randn(5, latent_dim, dtype=torch.float64)
        bias = torch.randn(5, dtype=torch.float64)
        variance = scale * (0.5 + torch.rand(5, dtype=torch.float64))
        x = bias + 2 * torch.randn(6, latent_dim, dtype=torch.float64) @ weight.T
        x = x + variance.sqrt() * torch.randn(6, 5, dtype=torch.float64)
        evidence, mean, covariance = linear_truth(weight, bias, variance, x)
        result = quadrature(linear_model(weight, bias, variance), x, tolerance=tolerance)
        check_honest(result, evidence, tolerance)
        if tolerance == 1e-9:
            assert_close(result.log_evidence, evidence, rtol=0, atol=1e-8)
            assert_close(result.mean, mean, rtol=0, atol=1e-7)
            assert_close(result.covariance, covariance, rtol=0, atol=1e-7)


def test_data_far_outside_the_priors_region_are_found_by_widening() -> None:
    model = example_a()
    x = torch.tensor([[100.0, -80.0, 50.0], [0.2, 0.3, -0.4], [-300.0, 200.0, 10.0]], dtype=torch.float64)
    truth = linear_truth(model.decoder.weight, model.decoder.bias, torch.full((3,), 0.25, dtype=torch.float64), x)
    result = quadrature(model, x, tolerance=1e-8)
    check_honest(result, truth[0].detach(), 1e-8)
    assert_close(result.mean, truth[1].detach(), rtol=0, atol=1e-6)
    assert result.mean.abs().max() > 50


@pytest.mark.parametrize(("variance", "expected"), [(0.5, -0.8943680559), (0.1, -0.7292771384), (0.01, -0.7258160230)])
def test_absolute_value_at_one(variance: float, expected: float) -> None:
    result = quadrature(absolute_model(variance), torch.ones(1, 1), tolerance=1e-9)
    assert abs(result.log_evidence.item() - expected) < 1e-8
    assert abs(result.mean.item()) < 1e-8  # both modes weigh the same


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-10])
def test_error_estimate_is_honest_at_a_kink(tolerance: float) -> None:
    for variance in (1e-3, 0.03, 0.4, 2.0):
        x = torch.linspace(-3, 3, 41, dtype=torch.float64).unsqueeze(1)
        result = quadrature(absolute_model(variance), x, tolerance=tolerance)
        check_honest(result, absolute_truth(variance, x)[:, 0], tolerance)


def test_error_estimate_is_honest_at_kinks_along_the_axes_of_the_plane() -> None:
    torch.manual_seed(1)
    x = torch.randn(12, 2, dtype=torch.float64)
    for variance, tolerance in ((0.02, 1e-3), (0.5, 1e-4), (0.1, 1e-4)):
        result = quadrature(absolute_model(variance, dim=2), x, tolerance=tolerance)
        check_honest(result, absolute_truth(variance, x).sum(1), tolerance)


def test_mixture_prior_number() -> None:
    def make(like: Tensor) -> dist.TorchDistribution:
        means = like.new_tensor([[-1.0, 0.5], [1.0, 0.0]])
        covariances = like.new_tensor([[[0.5, 0.1], [0.1, 0.4]], [[0.3, 0.0], [0.0, 0.8]]])
        components = dist.MultivariateNormal(means, covariances)
        return dist.MixtureSameFamily(dist.Categorical(like.new_tensor([0.3, 0.7])), components)

    result = quadrature(example_a(Fixed(2, make)), X_A[:1], tolerance=1e-10)
    assert abs(result.log_evidence.item() + 5.458836533301168) < 1e-10
    means = torch.tensor([[-0.3355540502, 0.3672386256], [0.3544151482, 0.0482955903]], dtype=torch.float64)
    weights = torch.tensor([0.3882065105, 0.6117934895], dtype=torch.float64)
    assert_close(result.mean[0], weights @ means, rtol=0, atol=1e-9)


def test_bounded_support_and_heavy_tails_integrate_to_the_constant() -> None:
    # the decoder says nothing about z, so log p(x) = log N(x; 0, I) under every prior
    x = torch.tensor([[0.3, -1.0, 0.5]], dtype=torch.float64)
    expected = -0.5 * (x.square().sum(1) + 3 * math.log(2 * math.pi))
    priors = [
        Fixed(2, lambda like: dist.Uniform(like - 1.3, like + 0.7).expand([2]).to_event(1)),
        Fixed(1, lambda like: dist.Exponential(like + 2.0).expand([1]).to_event(1)),
        Fixed(1, lambda like: dist.StudentT(like + 2.0, like + 1.0, like + 3.0).expand([1]).to_event(1)),
        Fixed(2, lambda like: dist.Laplace(like + 0.3, like + 3.0).expand([2]).to_event(1)),
        Fixed(2, lambda like: dist.Normal(like + 50.0, like + 1e-3).expand([2]).to_event(1)),
    ]
    for prior in priors:
        result = quadrature(LatentModel(prior, Constant(), gaussian(3, 1.0)), x, tolerance=1e-5)
        check_honest(result, expected, 1e-5)


def brute_force(model: LatentModel, x: Tensor, half: float = 8.0, num: int = 801) -> Tensor:
    """log p(x) by the trapezoid rule on a fixed square, in float64."""
    model = deepcopy(model).double()
    axis = torch.linspace(-half, half, num, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        parts = [
            model.likelihood(model.decoder(rows)).log_prob(x.double().unsqueeze(1)) + model.prior().log_prob(rows)
            for rows in z.split(20_000)
        ]
    return torch.cat(parts, dim=1).logsumexp(1) + 2 * math.log(2 * half / (num - 1))


@pytest.mark.parametrize(
    "likelihood",
    [
        BernoulliLikelihood(6),
        ContinuousBernoulliLikelihood(6),
        GaussianLikelihood(6, variance=0.05),
        GaussianLikelihood(6, variance="per-dimension", initial_variance=0.2),
        GaussianLikelihood(6, variance="per-datum", initial_variance=0.3),
    ],
    ids=["bernoulli", "continuous-bernoulli", "gaussian", "per-dimension", "per-datum"],
)
def test_every_likelihood_against_brute_force(likelihood) -> None:
    torch.manual_seed(0)
    decoder = MLPDecoder(2, 6, hidden=(16,), activation="tanh", num_outputs=likelihood.num_outputs)
    model = LatentModel(StandardNormalPrior(2), decoder, likelihood)
    x = torch.rand(3, 6)
    x = x.round() if isinstance(likelihood, BernoulliLikelihood) else x
    result = quadrature(model, x, tolerance=1e-9)
    assert_close(result.log_evidence, brute_force(model, x), rtol=0, atol=2e-9)


@pytest.mark.parametrize("likelihood", [BernoulliLikelihood(4), gaussian(4, [0.1, 0.2, 0.3, 0.4])])
def test_product_form_equals_the_log_density(likelihood) -> None:
    torch.manual_seed(0)
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 4), likelihood)
    x = torch.randint(2, (5, 4)).double()
    z = torch.randn(3, 6, 2, dtype=torch.float64)
    datum, cell = torch.tensor([0, 4, 2, 4]), torch.tensor([0, 0, 1, 2])
    double = double_copy(model, x.device)
    product, direct = (LogJoint(double, x, rounding=rounding)(z, datum, cell) for rounding in (1.0, 0.0))
    assert_close(product, direct, rtol=1e-12, atol=1e-12)
    for pair, (n, c) in enumerate(zip(datum, cell, strict=True)):
        expected = double.prior().log_prob(z[c]) + double.likelihood(double.decoder(z[c])).log_prob(x[n])
        assert_close(product[pair], expected.detach(), rtol=1e-12, atol=1e-12)


def test_relu_decoder_reaches_its_tolerance() -> None:
    torch.manual_seed(0)
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, 8, (32, 32), "relu"), gaussian(8, 0.02))
    x = model(num_data=10).detach()
    coarse, fine = quadrature(model, x, tolerance=1e-3), quadrature(model, x, tolerance=1e-5)
    assert coarse.converged.all()
    assert fine.converged.all()
    assert ((coarse.log_evidence - fine.log_evidence).abs() <= coarse.error + fine.error).all()


def test_the_caller_sees_no_change() -> None:
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, 3, (8,)), GaussianLikelihood(3))
    guide = DiagonalGuide(MLPEncoder(3, hidden=(5,)), 2)
    before = deepcopy(model.state_dict())
    quadrature(model, X_A.float(), guide=guide)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.dtype == torch.float32 and p.requires_grad and p.grad is None for p in model.parameters())
    assert model.training


def test_no_global_is_touched() -> None:
    model = example_a()
    torch.manual_seed(3)
    state, validation = torch.get_rng_state(), torch.distributions.Distribution._validate_args
    quadrature(model, X_A)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.distributions.Distribution._validate_args == validation
    assert torch.get_default_dtype() == torch.float32


def test_the_guide_shows_where_to_look() -> None:
    guide = DiagonalGuide(MLPEncoder(3, hidden=(5,)), 2)
    assert_close(quadrature(example_a(), X_A, guide=guide).log_evidence, quadrature(example_a(), X_A).log_evidence)


def test_posterior_grid() -> None:
    axes, log_density = posterior_grid(example_a(), X_A, num_points=201, extent=[(-3.0, 3.0), (-3.0, 2.0)])
    assert [len(axis) for axis in axes] == [201, 201]
    assert log_density.shape == (2, 201, 201)
    step = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    assert_close(log_density.exp().sum((1, 2)) * step, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-6)
    # the first latent dimension is the first axis of the grid
    mean = (log_density[0].exp().sum(1) * axes[0]).sum() * step
    assert abs(mean.item() + 0.021331204) < 1e-6


def test_posterior_grid_covers_the_posterior_by_default() -> None:
    (axis,), log_density = posterior_grid(absolute_model(0.01), torch.ones(1, 1), num_points=400)
    assert log_density.shape == (1, 400)
    mass = torch.trapezoid(log_density.exp(), axis)
    assert_close(mass, torch.ones(1, dtype=torch.float64), rtol=0, atol=1e-3)


def test_a_limit_on_cells_is_reported_and_not_hidden() -> None:
    result = quadrature(absolute_model(0.01, dim=2), torch.ones(1, 2), tolerance=1e-10, max_cells=300)
    assert not result.converged.any()
    assert (result.error > 1e-10).all()


class CostlyPrior(StandardNormalPrior):
    """A standard normal that makes ``numbers`` numbers more than it needs for each z."""

    numbers = 1

    def forward(self):
        p, numbers = super().forward(), self.numbers

        class Costly(type(p)):
            def log_prob(self, z: Tensor) -> Tensor:
                return super().log_prob(z) + z.new_zeros(*z.shape[:-1], numbers).sum(-1)

        return Costly(p.base_dist, p.reinterpreted_batch_ndims)


def test_a_costly_prior_gets_fewer_cells_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quadrature_module, "_MAX_NUMBERS", 10**7)
    model = absolute_model(0.01, dim=2)
    model.prior, x = CostlyPrior(2), torch.ones(1, 2)
    cheap = quadrature(model, x, tolerance=1e-9)
    model.prior.numbers = 1_000
    costly = quadrature(model, x, tolerance=1e-9)
    assert cheap.converged.all()
    assert not costly.converged.any()
    assert costly.error > 1e-9
    # a limit that is named holds
    assert_close(quadrature(model, x, tolerance=1e-9, max_cells=20_000).log_evidence, cheap.log_evidence)


def test_three_latent_dimensions_are_refused_with_the_remedy() -> None:
    model = LatentModel(StandardNormalPrior(3), LinearDecoder(3, 4), GaussianLikelihood(4))
    with pytest.raises(ArgumentError, match=r"latent_dim <= 2, got 3\. Use annealed importance sampling"):
        quadrature(model, torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("x", "error"),
    [(torch.zeros(2, 4), ShapeError), (torch.full((2, 3), math.nan), DataError), (torch.zeros(3), ShapeError)],
)
def test_bad_data(x: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error, match="x: "):
        quadrature(example_a(), x)


@pytest.mark.parametrize(
    "options", [{"tolerance": 0.0}, {"tolerance": math.nan}, {"max_cells": 0}, {"tolerance": True}]
)
def test_bad_options(options: dict) -> None:
    with pytest.raises(ArgumentError, match="expected"):
        quadrature(example_a(), X_A, **options)


@pytest.mark.parametrize("extent", [[(-1.0, 1.0)], [(1.0, -1.0), (0.0, 1.0)]])
def test_bad_extent(extent: list) -> None:
    with pytest.raises(ArgumentError, match=r"extent: expected 2 pairs"):
        posterior_grid(example_a(), X_A, extent=extent)


def test_a_density_that_is_not_a_number_is_an_error() -> None:
    model = LatentModel(StandardNormalPrior(2), Constant(math.nan), gaussian(3, 1.0))
    with pytest.raises(QuadratureError, match="log p\\(x, z\\) is nan at z = "):
        quadrature(model, X_A)


def test_a_posterior_that_cannot_be_covered_is_an_error() -> None:
    # tails 1/|z|^1.05: the mass beyond any box that is tried stays large
    prior = Fixed(1, lambda like: dist.StudentT(like + 0.05, like, like + 1.0).expand([1]).to_event(1))
    with pytest.raises(QuadratureError, match="does not cover the posterior, after 10 widenings"):
        quadrature(LatentModel(prior, Constant(), gaussian(3, 1.0)), X_A[:1], max_cells=2000)
