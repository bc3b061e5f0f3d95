"""Priors against scipy and their formulas, at random parameters; evidence under them against integration."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from pyro import distributions as dist
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError, ConfigError, ShapeError
from probvae.inference import (
    ConstrainedGuide,
    DiagonalGuide,
    ExactGuide,
    FullCovarianceGuide,
    LinearEncoder,
    MLPEncoder,
    analytic_kl,
    elbo,
    fit,
)
from probvae.inference.evidence.log_evidence import log_evidence
from probvae.inference.evidence.log_joint import double_copy
from probvae.models import (
    ConditionalNormalPrior,
    DistributionPrior,
    FlowPrior,
    GaussianLikelihood,
    LabelCovariates,
    LaplacePrior,
    LatentModel,
    LinearDecoder,
    Prior,
    StandardNormalPrior,
    StudentTPrior,
    UniformHypercubePrior,
    VampPrior,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}
DOUBLE = torch.float64


def randomise(module: torch.nn.Module, spread: float = 0.5) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(spread * torch.randn_like(parameter))


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (StudentTPrior(3, degrees=3.7, scale=0.6), scipy.stats.t(3.7, 0, 0.6)),
        (LaplacePrior(3, scale=0.6), scipy.stats.laplace(0, 0.6)),
        (UniformHypercubePrior(3, low=-0.7, high=2.1), scipy.stats.uniform(-0.7, 2.8)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_independent_priors_match_scipy(prior: Prior, expected: object) -> None:
    p = prior.double()()
    z = p.sample((7,))
    assert_close(p.log_prob(z), torch.from_numpy(expected.logpdf(z.numpy()).sum(-1)), **EXACT)


def test_flow_prior_begins_standard_normal_and_changes_by_its_jacobian() -> None:
    prior = FlowPrior(3, num_transforms=3, hidden=(8,)).double()
    z = torch.randn(6, 3, dtype=DOUBLE)
    assert_close(prior().log_prob(z), StandardNormalPrior(3).double()().log_prob(z), rtol=1e-9, atol=1e-9)
    randomise(prior)
    forward = prior.flow(None)
    noise = torch.randn(4, 3, dtype=DOUBLE)
    jacobian = torch.stack([torch.autograd.functional.jacobian(forward, row) for row in noise])
    expected = scipy.stats.norm.logpdf(noise.numpy()).sum(-1) - np.linalg.slogdet(jacobian.numpy())[1]
    assert_close(prior().log_prob(forward(noise)).detach(), torch.from_numpy(expected), rtol=1e-8, atol=1e-8)


def vamp(kind: type = DiagonalGuide) -> VampPrior:
    prior = VampPrior(kind(MLPEncoder(4, hidden=(5,)), 2), data_dim=4, num_components=3).double()
    randomise(prior)
    randomise(prior.guide)
    return prior


@pytest.mark.parametrize("kind", [DiagonalGuide, FullCovarianceGuide])
def test_vamp_prior_is_the_mixture_of_its_posteriors(kind: type) -> None:
    prior, z = vamp(kind), torch.randn(6, 2, dtype=DOUBLE)
    q = prior.guide.distribution(prior.pseudo_data)
    log_weights = prior.logits.log_softmax(0)
    expected = torch.logsumexp(torch.stack([log_weights + q.log_prob(row) for row in z]), dim=1)
    assert_close(prior().log_prob(z), expected, **EXACT)


def vamp_vae() -> probvae.VAE:
    prior = vamp()
    return probvae.VAE(LatentModel(prior, LinearDecoder(2, 4), GaussianLikelihood(4)).double(), prior.guide)


def test_vamp_prior_is_tied_to_its_guide(tmp_path: Path) -> None:
    vae = vamp_vae()
    names = [name for name, _ in vae.named_parameters()]
    assert len(names) == len(set(names))
    assert sum("encoder" in name for name in names) == 2  # the guide's, once
    z = torch.randn(3, 2)
    for twin in (copy.deepcopy(vae), _reloaded(vae, tmp_path)):
        assert twin.model.prior.guide is twin.guide
        assert_close(twin.model.prior().log_prob(z.double()), vae.model.prior().log_prob(z.double()))
    single = copy.deepcopy(vae).float()
    assert single.model.prior().log_prob(z).dtype == torch.float32
    alone = double_copy(copy.deepcopy(vae).float().model, torch.device("cpu"))
    assert alone.prior().log_prob(z.double()).dtype == DOUBLE


def _reloaded(vae: probvae.VAE, folder: Path) -> probvae.VAE:
    vae.save(folder / "vae.safetensors")
    return probvae.load(folder / "vae.safetensors")


def test_vamp_prior_starts_from_the_data() -> None:
    prior, x = vamp(), torch.randn(20, 4, dtype=DOUBLE)
    prior.start_from(x)
    assert all((x == row).all(1).any() for row in prior.pseudo_data.detach())


def test_vamp_prior_learns_in_a_fit() -> None:
    vae, x = vamp_vae(), torch.randn(200, 4, dtype=DOUBLE)
    before = vae.model.prior.pseudo_data.detach().clone()
    fit(vae, x, epochs=2, progress=False)
    assert (vae.model.prior.pseudo_data - before).abs().max() > 1e-4


def test_vamp_prior_of_a_guide_that_is_made_of_the_model() -> None:
    from probvae.experiments.build import build_vae
    from probvae.experiments.recipe import resolve

    recipe = resolve([{"model": {"prior": {"name": "vamp"}}, "inference": {"guide": {"name": "exact"}}}])
    with pytest.raises(ConfigError, match=r"prior 'vamp' is made of the guide, and guide 'exact' of the model"):
        build_vae(recipe, 4, 1.0)


PRIORS = {
    "student-t": StudentTPrior(1, degrees=3.0, scale=0.8),
    "laplace": LaplacePrior(1, scale=0.8),
    "uniform-hypercube": UniformHypercubePrior(1, low=-1.0, high=2.0),
    "flow": FlowPrior(1, num_transforms=2, hidden=(8,)),
    "gamma": DistributionPrior(dist.Gamma(torch.tensor([2.0]), torch.tensor([1.5])).to_event(1)),
}


@pytest.mark.parametrize("name", PRIORS)
def test_quadrature_evidence_under_each_prior(name: str) -> None:
    prior = copy.deepcopy(PRIORS[name]).double()
    randomise(prior)
    decoder = LinearDecoder(1, 2).double()
    model = LatentModel(prior, decoder, GaussianLikelihood(2, variance=0.3)).double()
    vae = probvae.VAE(model, DiagonalGuide(LinearEncoder(2), 1).double())
    x = torch.tensor([[0.4, -0.3]], dtype=DOUBLE)
    low, high = {"uniform-hypercube": (-1.0, 2.0), "gamma": (0.0, 40.0)}.get(name, (-30.0, 30.0))
    # midpoints, none of which is an end of the support
    width = (high - low) / 1_000_000
    z = low + width * (torch.arange(1_000_000, dtype=DOUBLE) + 0.5)
    with torch.no_grad():
        expected = math.log(width) + torch.logsumexp(model.log_joint(x, z[:, None, None]), 0).item()
    assert log_evidence(vae, x, "quadrature").value.item() == pytest.approx(expected, abs=1e-5)


def test_kl_to_a_laplace_prior_is_in_closed_form() -> None:
    q = torch.distributions.Independent(
        torch.distributions.Normal(torch.tensor([[0.4, -1.0]]), torch.tensor([[0.5, 2.0]])), 1
    )
    p = LaplacePrior(2, scale=0.7)().expand((1,))
    z = q.sample((400_000,))
    draws = q.log_prob(z) - p.log_prob(z)
    assert analytic_kl(q, p).item() == pytest.approx(draws.mean().item(), abs=5 * draws.std().item() / 400_000**0.5)
    with pytest.raises(ArgumentError, match="closed form"):
        analytic_kl(q, StudentTPrior(2)().expand((1,)))


@pytest.mark.parametrize(
    "distribution",
    [
        dist.StudentT(5.0, torch.zeros(2), torch.ones(2)).to_event(1),
        torch.distributions.MultivariateNormal(torch.tensor([0.3, -1.0]), torch.eye(2) + 0.2),
        torch.distributions.Independent(torch.distributions.Laplace(torch.zeros(2), torch.ones(2)), 1),
        torch.distributions.TransformedDistribution(
            torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1),
            [torch.distributions.AffineTransform(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 2.0]))],
        ),
        torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(torch.ones(3)),
            torch.distributions.Independent(torch.distributions.Normal(torch.randn(3, 2), torch.ones(3, 2)), 1),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_distribution_is_a_prior(distribution: torch.distributions.Distribution) -> None:
    model = LatentModel(distribution, LinearDecoder(2, 4), GaussianLikelihood(4))
    z = torch.randn(5, 2)
    assert_close(model.prior().log_prob(z), distribution.log_prob(z))
    assert model(num_data=6).shape == (6, 4)
    vae = probvae.VAE(model, DiagonalGuide(LinearEncoder(4), 2)).double()
    assert vae.model.prior().log_prob(z.double()).dtype == DOUBLE
    assert vae.model.prior().sample().dtype == DOUBLE
    assert distribution.sample().dtype == torch.float32  # the caller's own is left as it was
    x = torch.randn(60, 4, dtype=DOUBLE)
    result = fit(vae, x, epochs=2, batch_size=20, progress=False)
    assert np.isfinite(result.history[-1]["elbo"])
    with pytest.raises(ConfigError, match="DistributionPrior: cannot be saved by name"):
        vae.components()


def test_distribution_of_another_shape() -> None:
    with pytest.raises(ShapeError, match=r"event_shape \(d,\), got \(2,\) and \(\).*to_event\(1\)"):
        LatentModel(dist.Normal(torch.zeros(2), torch.ones(2)), LinearDecoder(2, 4), GaussianLikelihood(4))


def test_closed_form_of_a_normal_that_was_handed_over() -> None:
    normal = torch.distributions.MultivariateNormal(torch.tensor([0.3, -1.0]), torch.eye(2) + 0.2)
    model = LatentModel(normal, LinearDecoder(2, 4), GaussianLikelihood(4, variance=0.3)).double()
    vae, x = probvae.VAE(model, ExactGuide(model)), torch.randn(5, 4, dtype=DOUBLE)
    estimate = log_evidence(vae, x)
    assert estimate.method == "exact"
    assert_close(elbo(vae, x), estimate.value, rtol=0, atol=1e-10)


def test_guide_must_stay_inside_a_bounded_prior() -> None:
    model = LatentModel(UniformHypercubePrior(2), LinearDecoder(2, 4), GaussianLikelihood(4))
    x = torch.randn(60, 4)
    with pytest.raises(ArgumentError, match=r"q_x inside the prior's support.*ConstrainedGuide"):
        fit(probvae.VAE(model, DiagonalGuide(LinearEncoder(4), 2)), x, batch_size=20, epochs=1, progress=False)
    inside = ConstrainedGuide(DiagonalGuide(LinearEncoder(4), 2), -1.0, 1.0)
    vae = probvae.VAE(model, inside)
    fit(vae, x, batch_size=20, epochs=3, progress=False)
    gap = probvae.posterior_gap(vae, x[:10])
    assert gap.truth.method == "quadrature"
    assert (gap.total.value > -4 * gap.total.standard_error).all()


def test_conditional_prior_matches_its_formula() -> None:
    prior = ConditionalNormalPrior(2, num_covariates=3).double()
    randomise(prior)
    y, z = torch.randn(5, 3, dtype=DOUBLE), torch.randn(5, 2, dtype=DOUBLE)
    mean = y @ prior.loc.weight.T + prior.loc.bias
    scale = (y @ prior.log_scale.weight.T + prior.log_scale.bias).exp()
    expected = scipy.stats.norm(mean.detach().numpy(), scale.detach().numpy()).logpdf(z.numpy()).sum(-1)
    assert_close(prior.given(y).log_prob(z).detach(), torch.from_numpy(expected), **EXACT)
    assert prior.given(y[:1]).batch_shape == ()
    with pytest.raises(ArgumentError, match="y was not given"):
        prior()


def test_conditional_prior_in_a_model() -> None:
    """Exact given one y; as the exact guide, group by group, for many."""
    covariates = LabelCovariates(["a", "b"])
    prior = ConditionalNormalPrior(2, num_covariates=2)
    model = LatentModel(prior, LinearDecoder(4, 3), GaussianLikelihood(3, variance=0.4), covariates)
    vae = probvae.VAE(model, FullCovarianceGuide(LinearEncoder(5), 2)).double()
    randomise(vae)
    x, labels = torch.randn(4, 3, dtype=DOUBLE), ["a", "b", "b", "a"]
    value = log_evidence(vae.given(labels), x, "exact").value
    weight, slope = model.decoder.weight[:, :2], model.decoder.weight[:, 2:]
    expected = []
    for row, label in zip(x, labels, strict=True):
        y = covariates.encode([label]).double()
        p = prior.given(y)
        mean = weight @ p.mean + slope @ y[0] + model.decoder.bias
        covariance = weight @ torch.diag(p.variance) @ weight.T + 0.4 * torch.eye(3, dtype=DOUBLE)
        expected.append(torch.distributions.MultivariateNormal(mean, covariance).log_prob(row))
    assert_close(value, torch.stack(expected).detach(), rtol=0, atol=1e-10)
    fit(vae, x.repeat(20, 1), y=labels * 20, epochs=2, batch_size=20, progress=False)
    with pytest.raises(ShapeError, match="expects 2 covariates, the model has 0"):
        LatentModel(prior, LinearDecoder(2, 3), GaussianLikelihood(3))


def affine(loc: torch.Tensor, scale: torch.Tensor) -> list[torch.distributions.Transform]:
    transforms = torch.distributions.transforms
    step = transforms.AffineTransform(loc, scale)
    return [
        transforms.IndependentTransform(step, 1),
        transforms.ComposeTransform([step, transforms.AffineTransform(0.0, scale)]).inv,
    ]


def test_a_transformed_prior_moves_with_its_tensors_and_forgets_its_old_inverse() -> None:
    loc, scale = torch.tensor([1.0, -0.3]), torch.tensor([0.5, 1.7])

    def built(factor: float) -> torch.distributions.Distribution:
        base = torch.distributions.Independent(torch.distributions.Normal(factor * loc, factor * scale), 1)
        return torch.distributions.TransformedDistribution(base, affine(factor * loc, factor * scale))

    prior, z = DistributionPrior(built(1.0)), torch.randn(5, 2)
    assert_close(prior().log_prob(z), built(1.0).log_prob(z))  # makes the inverses that a copy would keep
    prior._apply(lambda tensor: 3 * tensor)
    assert_close(prior().log_prob(z), built(3.0).log_prob(z))
