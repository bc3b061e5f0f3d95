"""Oracles of the guide families beyond the diagonal and the full one. Their contracts: test_guides.py."""

import copy
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from pyro import distributions as dist
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
from probvae import testing
from probvae.errors import ArgumentError, UnknownNameError
from probvae.inference import (
    ConstrainedGuide,
    DiagonalGuide,
    FullCovarianceGuide,
    Guide,
    LinearEncoder,
    MLPEncoder,
    analytic_kl,
)
from probvae.inference.densities.kl import has_analytic_kl
from probvae.inference.guides import FlowGuide, LowRankGuide, MixtureGuide
from probvae.inference.guides._mixture_of_normals import MixtureOfNormals, _with_gradient
from probvae.inference.objectives import AnalyticKLObjective, STLObjective

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


def random_mixture(d: int, k: int, batch: tuple[int, ...] = (), spread: float = 1.0) -> list[torch.Tensor]:
    """Logits, means and Cholesky factors (their diagonals positive) of a mixture, ready for gradients."""
    factor = 0.5 * torch.randn(*batch, k, d, d).tril(-1) + torch.diag_embed(torch.rand(*batch, k, d) + 0.3)
    parts = [torch.randn(*batch, k), spread * torch.randn(*batch, k, d), factor]
    return [part.requires_grad_() for part in parts]


def mixture(logits: torch.Tensor, loc: torch.Tensor, factor: torch.Tensor) -> MixtureOfNormals:
    return MixtureOfNormals(dist.Categorical(logits=logits), dist.MultivariateNormal(loc, scale_tril=factor))


def distributional_transform(
    z: torch.Tensor, logits: torch.Tensor, loc: torch.Tensor, factor: torch.Tensor
) -> torch.Tensor:
    """S (d,) of one z (d,) by its definition: the conditional distribution functions, dimension by dimension."""
    noise = [(torch.linalg.inv(matrix) @ (z - mean)) for mean, matrix in zip(loc, factor, strict=True)]
    density, rows = logits.softmax(-1), []
    for j in range(len(z)):
        inside = torch.stack([torch.special.ndtr(eps[j]) for eps in noise])
        rows.append((density * inside).sum() / density.sum())
        normal = torch.stack([torch.exp(-0.5 * eps[j] ** 2) for eps in noise])
        density = density * normal / torch.stack([matrix[j, j] for matrix in factor])
    return torch.stack(rows)


def lower(gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Of logits, means and factors; of the factors the entries that they have."""
    return [*gradients[:2], gradients[2].tril()]


@pytest.mark.parametrize(("d", "k"), [(1, 2), (2, 3), (4, 2), (3, 1)])
def test_draws_move_along_the_distributional_transform(d: int, k: int, double: None) -> None:
    parameters = random_mixture(d, k)
    for _ in range(5):
        z = mixture(*parameters).rsample()
        jacobian = torch.autograd.functional.jacobian(
            lambda z: distributional_transform(z, *[part.detach() for part in parameters]), z.detach()
        )
        direction = torch.randn(d)
        pulled = -torch.linalg.solve(jacobian.T, direction)
        expected = torch.autograd.grad(distributional_transform(z.detach(), *parameters) @ pulled, parameters)
        got = torch.autograd.grad(z @ direction, parameters)
        for gradient, truth in zip(lower(got), lower(expected), strict=True):
            assert_close(gradient, truth, rtol=1e-9, atol=1e-9)


def test_one_component_is_the_ordinary_normal(double: None) -> None:
    logits, loc, factor = random_mixture(4, 1, batch=(3,))
    z = mixture(logits, loc, factor).rsample((5,))
    noise = torch.linalg.solve(factor[:, 0], (z - loc[:, 0]).unsqueeze(-1)).detach()
    ordinary = loc[:, 0] + (factor[:, 0] @ noise).squeeze(-1)
    direction = torch.randn(5, 3, 4)
    got = torch.autograd.grad((z * direction).sum(), [loc, factor])
    expected = torch.autograd.grad((ordinary * direction).sum(), [loc, factor])
    assert_close(got[0], expected[0], rtol=1e-10, atol=1e-10)
    assert_close(got[1].tril(), expected[1].tril(), rtol=1e-10, atol=1e-10)


def moments(logits: torch.Tensor, loc: torch.Tensor, factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and second moment of a mixture, in closed form."""
    weight = logits.softmax(-1)
    second = factor @ factor.mT + loc.unsqueeze(-1) * loc.unsqueeze(-2)
    return torch.einsum("k,ki->i", weight, loc), torch.einsum("k,kij->ij", weight, second)


@pytest.mark.parametrize("d", [1, 3])
def test_gradient_of_moments_against_the_closed_form(d: int, double: None) -> None:
    """E[a.z] and E[z'Bz] of a mixture of three; the estimate of each derivative has a standard error of its own."""
    parameters = random_mixture(d, 3)
    a, matrix = torch.randn(d), torch.randn(d, d)
    many = [part.detach().expand(40_000, *part.shape).clone().requires_grad_() for part in parameters]
    z = mixture(*many).rsample()
    mean, second = moments(*parameters)
    for values, truth in [(z @ a, mean @ a), (((z @ matrix) * z).sum(-1), (matrix * second).sum())]:
        # the zero: what a moment does not depend on has the gradient zero
        truth = truth + 0 * sum(part.sum() for part in parameters)
        exact = lower(torch.autograd.grad(truth, parameters, retain_graph=True))
        each = lower(torch.autograd.grad(values.sum(), many, retain_graph=True))
        for samples, expected in zip(each, exact, strict=True):
            error = samples.std(0) / len(samples) ** 0.5
            assert ((samples.mean(0) - expected).abs() <= 5 * error + 1e-12).all()


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_mixture_guide_is_the_mixture_of_its_heads(covariance: str, double: None) -> None:
    guide = MixtureGuide(MLPEncoder(4, hidden=(5,)), latent_dim=3, num_components=2, covariance=covariance)
    randomise(guide)
    x, z = torch.randn(6, 4), torch.randn(6, 3)
    weight = output(guide.logits, guide, x).softmax(-1)
    loc = output(guide.loc, guide, x).reshape(6, 2, 3)
    scale = scale_of(output(guide.log_scale, guide, x)).reshape(6, 2, 3)
    unit = torch.eye(3).repeat(6, 2, 1, 1)
    if covariance == "full":
        t = output(guide.dependence, guide, x).reshape(6, 2, 3)
        unit[..., 1, 0], unit[..., 2, 0], unit[..., 2, 1] = t.unbind(-1)
    factor = torch.diag_embed(scale) @ unit
    noise = torch.linalg.solve(factor, (z[:, None] - loc)[..., None])[..., 0]
    density = torch.exp(-0.5 * noise**2 - 0.5 * math.log(2 * math.pi)).prod(-1) / scale.prod(-1)
    q = guide.distribution(x)
    assert_close(q.log_prob(z), (weight * density).sum(-1).log(), **EXACT)
    assert_close(q.mean, (weight[..., None] * loc).sum(1), **EXACT)
    second = (weight[..., None] * (factor.square().sum(-1) + loc**2)).sum(1)
    assert_close(q.variance, second - q.mean**2, **EXACT)


def test_diagonal_components_draw_as_full_ones(double: None) -> None:
    logits, loc, factor = random_mixture(3, 2, batch=(4,))
    scale = factor.detach().diagonal(dim1=-2, dim2=-1).clone().requires_grad_()
    gradients = []
    for components in (
        dist.Normal(loc, scale).to_event(1),
        dist.MultivariateNormal(loc, scale_tril=torch.diag_embed(scale)),
    ):
        torch.manual_seed(3)
        z = MixtureOfNormals(dist.Categorical(logits=logits), components).rsample()
        gradients.append(torch.autograd.grad(z.square().sum(), [logits, loc, scale]))
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, **EXACT)


def test_tails_are_mirror_images(double: None) -> None:
    """Far out in the upper tail S is one to every digit; the draw moves as its mirror image does in the lower one."""
    logits, loc, _ = random_mixture(2, 3, spread=0.1)
    parameters = [logits, loc, torch.eye(2).repeat(3, 1, 1).requires_grad_()]
    mirrored = [logits, (-loc.detach()).requires_grad_(), parameters[2]]
    z = torch.tensor([9.0, 12.0])
    upper = torch.autograd.grad(_with_gradient(z, *parameters).sum(), parameters)
    below = torch.autograd.grad(_with_gradient(-z, *mirrored).sum(), mirrored)
    assert_close(below[0], -upper[0], **EXACT)
    assert_close(below[1], upper[1], **EXACT)
    assert_close(below[2], -upper[2], **EXACT)
    assert upper[0].abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("width", [1e-3, 1.0])
def test_gradient_is_finite_however_far_apart(dtype: torch.dtype, spread: float, width: float) -> None:
    parts = [part.detach().to(dtype) for part in random_mixture(5, 4, batch=(20,), spread=spread)]
    logits, loc, factor = [part.requires_grad_() for part in (parts[0], parts[1], width * parts[2])]
    z = mixture(logits, loc, factor).rsample((50,))
    for gradient in torch.autograd.grad(z.square().sum(), [logits, loc, factor]):
        assert gradient.isfinite().all()


def test_value_of_a_draw_is_that_of_sample_and_plates_keep_the_class() -> None:
    parameters = random_mixture(2, 3, batch=(4,))
    q = mixture(*parameters)
    for p in (q, q.expand((5, 4))):
        assert type(p) is MixtureOfNormals
        assert isinstance(p, torch.distributions.MixtureSameFamily)
        torch.manual_seed(2)
        value = p.sample()
        torch.manual_seed(2)
        assert torch.equal(p.rsample(), value)


def test_single_precision_follows_double(double: None) -> None:
    parameters = random_mixture(3, 3, batch=(500,))
    single = [part.detach().float().requires_grad_() for part in parameters]
    z = mixture(*parameters).sample()
    gradients = [
        torch.autograd.grad(_with_gradient(z.to(part[0]), *part).square().sum(), part) for part in (parameters, single)
    ]
    for exact, rounded in zip(*gradients, strict=True):
        assert_close(rounded.double(), exact, rtol=1e-3, atol=1e-3)


def test_landing_is_stuck_at_the_exact_mixture_posterior(double: None) -> None:
    """stl's gradient is zero where q is the posterior, a mixture under a mixture prior, for every draw."""
    prior = probvae.MixturePrior(2, num_components=2, covariance="full")
    randomise(prior)
    model = probvae.LatentModel(prior, probvae.LinearDecoder(2, 3), probvae.GaussianLikelihood(3, variance=0.3))
    randomise(model.decoder)
    x = torch.randn(1, 3)
    guide = MixtureGuide(LinearEncoder(3), latent_dim=2, num_components=2, covariance="full")
    _set_to(guide, probvae.exact_posterior(model, x))
    assert_close(guide.distribution(x).log_prob(x[:, :2]), probvae.exact_posterior(model, x).log_prob(x[:, :2]))
    objective = STLObjective(num_particles=20)
    gradients = torch.autograd.grad(objective(model, guide, x).sum(), list(guide.parameters()))
    assert max(gradient.abs().max() for gradient in gradients) < 1e-9


@torch.no_grad()
def _set_to(guide: MixtureGuide, posterior: torch.distributions.MixtureSameFamily) -> None:
    """The biases of a guide so that it is ``posterior`` (of one datum), its weights at zero."""
    components = posterior.component_distribution
    scale = components.scale_tril.diagonal(dim1=-2, dim2=-1)
    values = {
        guide.logits: posterior.mixture_distribution.logits,
        guide.loc: components.loc,
        guide.log_scale: 10 * torch.atanh(scale.log() / 10),
        guide.dependence: components.scale_tril[..., 1, 0] / scale[..., 1],
    }
    for head, value in values.items():
        head.weight.zero_()
        head.bias.copy_(value.flatten())


def test_mixture_guide_begins_with_components_apart() -> None:
    q = MixtureGuide(MLPEncoder(4), latent_dim=3, num_components=4).distribution(torch.randn(5, 4))
    means = q.component_distribution.mean
    assert torch.pdist(means[0]).min() > 0.1
    offsets = means - means[:, :1]
    assert_close(offsets, offsets[:1].expand_as(offsets))
    assert_close(q.mixture_distribution.probs, torch.full((5, 4), 0.25))


def test_mixture_guide_refuses_what_there_is_not() -> None:
    with pytest.raises(ArgumentError, match="num_components: expected an integer >= 1, got 0"):
        MixtureGuide(LinearEncoder(3), latent_dim=2, num_components=0)
    with pytest.raises(UnknownNameError, match="unknown covariance 'low'"):
        MixtureGuide(LinearEncoder(3), latent_dim=2, covariance="low")


def test_analytic_kl_refuses_the_mixture_guide() -> None:
    model = probvae.VAE.example().model
    with pytest.raises(ArgumentError, match=r"MixtureOfNormals.*objective='elbo'"):
        AnalyticKLObjective()(model, MixtureGuide.example(), torch.randn(5, 3))


def random_flow(latent_dim: int, num_transforms: int = 2) -> FlowGuide:
    guide = FlowGuide(LinearEncoder(3), latent_dim, num_transforms, hidden=(6,), num_bins=4, context_dim=2)
    randomise(guide)
    return guide


@pytest.mark.parametrize("d", [1, 2, 3])
def test_flow_begins_as_the_diagonal_normal(d: int, double: None) -> None:
    guide = FlowGuide(MLPEncoder(4), latent_dim=d, num_transforms=3)
    x, z = torch.randn(5, 4), torch.randn(7, 5, d)
    expected = Normal(output(guide.loc, guide, x), 1.0).log_prob(z).sum(-1)
    assert_close(guide.distribution(x).log_prob(z), expected, **EXACT)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_flow_density_is_the_change_of_variables(d: int, double: None) -> None:
    """Noise through the map by hand, with the determinant of the map's Jacobian by automatic differentiation."""
    guide = random_flow(d)
    x, noise = torch.randn(1, 3), 1.5 * torch.randn(d)

    def pushed(noise: torch.Tensor) -> torch.Tensor:
        bent = guide.flow(output(guide.context, guide, x)[0])(noise)
        return output(guide.loc, guide, x)[0] + scale_of(output(guide.log_scale, guide, x))[0] * bent

    jacobian = torch.autograd.functional.jacobian(pushed, noise)
    expected = Normal(0.0, 1.0).log_prob(noise).sum() - torch.linalg.slogdet(jacobian).logabsdet
    got = guide.distribution(x).log_prob(pushed(noise).detach().clone()[None])[0]
    assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [1, 2])
def test_bent_flow_keeps_the_contract(d: int, double: None) -> None:
    """Total mass one, and draws that follow the density: the contract tests see the flow as it begins, unbent."""
    testing.check_guide(random_flow(d))


def test_flow_draws_remember_nothing(double: None) -> None:
    """No cache: a draw's density is the same from a fresh distribution, and after the parameters have moved."""
    guide, x = random_flow(2), torch.randn(4, 3)
    q = guide.distribution(x)
    z = q.rsample((6,))
    assert_close(q.log_prob(z), guide.distribution(x).log_prob(z.detach().clone()), **EXACT)
    randomise(guide)
    moved = guide.distribution(x)
    assert_close(moved.log_prob(z), moved.log_prob(z.detach().clone()), **EXACT)


def test_flow_expands_over_plates(double: None) -> None:
    guide, x = random_flow(3), torch.randn(4, 3)
    q = guide.distribution(x)
    wide = q.expand((5, 4))
    assert (wide.batch_shape, wide.event_shape) == ((5, 4), (3,))
    z = wide.rsample()
    assert_close(wide.log_prob(z), torch.stack([q.log_prob(row) for row in z]), **EXACT)


def test_flow_guide_is_saved_and_copied(tmp_path: Path) -> None:
    model = probvae.VAE.example().model
    vae = probvae.VAE(model, FlowGuide.example())
    randomise(vae.guide)
    vae.save(tmp_path / "vae.safetensors")
    x, z = torch.randn(5, 3), torch.randn(5, 2)
    for other in (probvae.VAE.load(tmp_path / "vae.safetensors"), copy.deepcopy(vae)):
        assert torch.equal(other(x).log_prob(z), vae(x).log_prob(z))


def test_zuko_leaves_validation_on_in_a_fresh_process() -> None:
    code = (
        "import sys, torch, probvae; assert 'zuko' not in sys.modules; import probvae.inference; "
        "assert 'zuko' not in sys.modules; from probvae.inference.guides import FlowGuide; "
        "FlowGuide.example().distribution(torch.zeros(2, 3)).rsample(); "
        "print(torch.distributions.Distribution._validate_args)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("option", ["num_transforms", "num_bins", "context_dim"])
def test_flow_guide_refuses_counts_below_one(option: str) -> None:
    with pytest.raises(ArgumentError, match=f"{option}: expected an integer >= 1, got 0"):
        FlowGuide(LinearEncoder(3), 2, **{option: 0})


def test_fit_takes_no_means_of_a_flow_for_a_variance_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost a thousand draws a datum and epoch, many times what the training costs."""

    def refuse(*_: object) -> None:
        pytest.fail("the posterior means were asked for")

    monkeypatch.setattr(probvae.inference.evaluation.variance, "posterior_mean", refuse)
    vae = probvae.VAE(probvae.VAE.example().model, FlowGuide.example())
    history = probvae.fit(vae, torch.randn(20, 3), batch_size=10, epochs=1, progress=False).history
    assert history[-1]["variance"] > 0


# Gaps of fitted guides where the posterior has the correlation 0.8; 0.184149 is the minimum of the mixture's divergence
# by quadrature on a grid, the same from eight starts
CORRELATED_GAPS = {
    "diagonal": (DiagonalGuide, 5e-2, 0.5 * math.log(1 / 0.36), 1e-3),
    "low-rank": (LowRankGuide, 5e-2, 0.0, 1e-5),
    "full-covariance": (FullCovarianceGuide, 5e-2, 0.0, 1e-5),
    "mixture": (MixtureGuide, 5e-2, 0.184149, 5e-3),
    "flow": (FlowGuide, 1e-2, 0.0, 5e-3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CORRELATED_GAPS)
def test_fitted_gap_on_a_correlated_posterior(name: str, double: None) -> None:
    make, learning_rate, expected, tolerance = CORRELATED_GAPS[name]
    precision = 12 * torch.tensor([[1.0, -0.8], [-0.8, 1.0]])
    weight = 0.5 * torch.linalg.cholesky(precision - torch.eye(2)).T
    model = probvae.LinearGaussianModel(weight, variance=0.25).requires_grad_(False)
    x = model(num_data=400)
    vae = probvae.VAE(model, make(LinearEncoder(2), 2))
    fitted = {"epochs": 300, "batch_size": 100, "learning_rate": learning_rate, "schedule": "cosine"}
    probvae.fit(vae, x, objective=STLObjective(num_particles=4), progress=False, **fitted)
    with torch.no_grad():
        q, posterior = vae(x), probvae.exact_posterior(model, x)
        if has_analytic_kl(q, posterior):
            gap, error = analytic_kl(q, posterior).mean(), 0.0
        else:
            z = q.sample((1000,))
            each = (q.log_prob(z) - posterior.log_prob(z)).mean(1)
            gap, error = each.mean(), each.std() / len(each) ** 0.5
    assert gap.item() == pytest.approx(expected, abs=tolerance)
    assert error < tolerance / 3


@pytest.mark.parametrize("inner", [LowRankGuide, MixtureGuide, FlowGuide])
def test_constrained_guide_is_the_inner_one_through_a_sigmoid(inner: type[Guide], double: None) -> None:
    guide = ConstrainedGuide(inner(LinearEncoder(3), 2), low=-0.5, high=2.0)
    x, u = torch.randn(5, 3), torch.randn(5, 2)
    # a millionth of the box is left free on each side
    low, width = -0.5 + 2.5e-6, 2.5 * (1 - 2e-6)
    share = 1 / (1 + torch.exp(-u))
    expected = guide.guide.distribution(x).log_prob(u) - (width * share * (1 - share)).log().sum(-1)
    q = guide.distribution(x)
    assert_close(q.log_prob(low + width * share), expected, rtol=1e-9, atol=1e-9)
    z = q.rsample((1000,))
    assert z.requires_grad
    assert z.min() > -0.5
    assert z.max() < 2.0
