"""Likelihoods against scipy and against their formulas, at random parameters."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError, ConfigError, FloorWarning, SupportError, UnknownNameError
from probvae.inference import DiagonalGuide, LinearEncoder, elbo
from probvae.inference import model_file as specification
from probvae.models import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    LaplaceLikelihood,
    LatentModel,
    Likelihood,
    LinearDecoder,
    MixedLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    StandardNormalPrior,
    StudentTLikelihood,
)

EXACT = {"rtol": 1e-11, "atol": 1e-12}


def randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 + 0.4 * torch.randn_like(parameter))


@pytest.mark.parametrize("mode", [0.7, "learned", "per-dimension"])
def test_student_t_matches_scipy(mode: float | str, double: None) -> None:
    likelihood = StudentTLikelihood(3, degrees=3.3, scale=mode, minimum_scale=0.05)
    randomise(likelihood)
    loc, x = torch.randn(6, 3), 3 * torch.randn(6, 3)
    scale = 0.7 if mode == 0.7 else (0.05 + likelihood.scale.log_value.exp()).detach().numpy()
    expected = scipy.stats.t(3.3, loc.numpy(), scale).logpdf(x.numpy()).sum(-1)
    assert_close(likelihood(loc).log_prob(x).detach(), torch.from_numpy(expected), **EXACT)
    assert torch.equal(likelihood.point(loc), loc)


@pytest.mark.parametrize("mode", [0.7, "learned", "per-dimension"])
def test_laplace_matches_scipy(mode: float | str, double: None) -> None:
    likelihood = LaplaceLikelihood(3, scale=mode, minimum_scale=0.05)
    randomise(likelihood)
    loc, x = torch.randn(6, 3), 3 * torch.randn(6, 3)
    scale = 0.7 if mode == 0.7 else (0.05 + likelihood.scale.log_value.exp()).detach().numpy()
    expected = scipy.stats.laplace(loc.numpy(), scale).logpdf(x.numpy()).sum(-1)
    assert_close(likelihood(loc).log_prob(x).detach(), torch.from_numpy(expected), **EXACT)


def test_learned_scale_begins_at_the_datas(double: None) -> None:
    """The variance of the noise is the one that was given: 2 s^2 for Laplace, s^2 pi^2 / 3 for the logistic."""
    assert LaplaceLikelihood(3, initial_variance=0.5).scale.value().item() == pytest.approx(0.5)
    assert StudentTLikelihood(3, initial_variance=0.25).scale.value().item() == pytest.approx(0.5)
    s = DiscretizedLogisticLikelihood(3, initial_variance=0.3).scale.value().item()
    assert s**2 * np.pi**2 / 3 == pytest.approx(0.3)


def test_given_scale_is_exact_in_float64() -> None:
    assert LaplaceLikelihood(3, scale=0.1).double().scale.value().item() == 0.1


def test_poisson_matches_scipy(double: None) -> None:
    log_rate, x = torch.randn(6, 3), torch.randint(0, 9, (6, 3)).double()
    expected = scipy.stats.poisson(log_rate.exp().numpy()).logpmf(x.numpy()).sum(-1)
    assert_close(PoissonLikelihood(3)(log_rate).log_prob(x), torch.from_numpy(expected), **EXACT)


@pytest.mark.parametrize("mode", [1.7, "learned", "per-dimension"])
def test_negative_binomial_matches_scipy(mode: float | str, double: None) -> None:
    likelihood = NegativeBinomialLikelihood(3, dispersion=mode, minimum_dispersion=0.01)
    randomise(likelihood)
    log_mean, x = torch.randn(6, 3), torch.randint(0, 9, (6, 3)).double()
    theta = 1.7 if mode == 1.7 else (0.01 + likelihood.dispersion.log_value.exp()).detach().numpy()
    mean = log_mean.exp().numpy()
    expected = scipy.stats.nbinom(theta, theta / (theta + mean)).logpmf(x.numpy()).sum(-1)
    p = likelihood(log_mean)
    assert_close(p.log_prob(x).detach(), torch.from_numpy(expected), **EXACT)
    assert_close(p.mean.detach(), torch.from_numpy(mean), **EXACT)
    assert_close(p.variance.detach(), torch.from_numpy(mean + mean**2 / theta), **EXACT)


COUNTS = [[0.0, 3.0, 41.0], [7.0, 0.0, 1.0], [900.0, 2.0, 0.0], [5.0, 5.0, 5.0]]


def per_dimension(likelihood: Likelihood, parameters: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return likelihood(parameters).base_dist.log_prob(x)


def test_poisson_far_out_is_no_nan(double: None) -> None:
    """A rate that underflows keeps its logarithm; one that overflows has no probability left."""
    log_rate = torch.tensor([[-2000.0, 2000.0, 0.0]], requires_grad=True)
    log_prob = per_dimension(PoissonLikelihood(3), log_rate, torch.tensor([[3.0, 3.0, 3.0]]))
    assert log_prob[0, 0].item() == pytest.approx(-6000 - np.log(6), abs=1e-9)
    assert log_prob[0, 1].item() == -np.inf
    assert torch.autograd.grad(log_prob[0, 0], log_rate)[0][0, 0].item() == 3.0


@pytest.mark.parametrize("theta", [0.02, 19.999, 20.001, 300.0])
def test_negative_binomial_on_both_sides_of_the_series(theta: float, double: None) -> None:
    log_mean, x = torch.randn(4, 3), torch.tensor(COUNTS)
    expected = scipy.stats.nbinom(theta, theta / (theta + log_mean.exp().numpy())).logpmf(x.numpy())
    likelihood = NegativeBinomialLikelihood(3, dispersion=theta)
    got = per_dimension(likelihood, log_mean, x)
    assert_close(got, torch.from_numpy(expected), rtol=1e-12, atol=1e-11)
    theirs = torch.distributions.NegativeBinomial(torch.tensor(theta), logits=log_mean - np.log(theta))
    assert_close(got, theirs.log_prob(x), rtol=1e-12, atol=1e-11)


def test_negative_binomial_of_large_theta_is_a_poisson_in_float32_too() -> None:
    """By differences of log-gammas it is wrong by 13 nats a dimension at theta = 1e7."""
    log_mean, x = torch.randn(3, 3), torch.tensor([COUNTS[0], COUNTS[1], COUNTS[3]])
    got = per_dimension(NegativeBinomialLikelihood(3, dispersion=1e7), log_mean, x)
    assert_close(got, per_dimension(PoissonLikelihood(3), log_mean, x), rtol=1e-4, atol=1e-4)


def test_categorical_matches_its_formula(double: None) -> None:
    likelihood = CategoricalLikelihood(3, num_categories=4)
    logits, x = torch.randn(6, 12), torch.randint(0, 4, (6, 3)).double()
    expected = torch.zeros(6)
    for column in range(3):
        log_p = logits[:, 4 * column : 4 * column + 4].log_softmax(-1)
        expected += log_p[torch.arange(6), x[:, column].long()]
    p = likelihood(logits)
    assert_close(p.log_prob(x), expected, **EXACT)
    assert torch.equal(likelihood.point(logits), logits.reshape(6, 3, 4).argmax(-1).double())
    codes = torch.arange(4.0)
    probabilities = logits.reshape(6, 3, 4).softmax(-1)
    assert_close(p.mean, probabilities @ codes, **EXACT)
    assert_close(p.variance, probabilities @ codes**2 - (probabilities @ codes) ** 2, **EXACT)


def test_discretized_logistic_is_an_integral_over_bins(double: None) -> None:
    likelihood = DiscretizedLogisticLikelihood(3, num_levels=7, scale="per-dimension", minimum_scale=0.01)
    randomise(likelihood)
    loc = torch.randn(6, 3)
    levels = torch.arange(7.0) / 6
    scale = (0.01 + likelihood.scale.log_value.exp()).detach().numpy()
    logistic = scipy.stats.logistic(loc.numpy()[..., None], scale[:, None])
    edges = np.concatenate([[-np.inf], (np.arange(6) + 0.5) / 6, [np.inf]])
    expected = np.log(np.diff(logistic.cdf(edges), axis=-1))
    base = likelihood(loc).base_dist
    got = torch.stack([base.log_prob(level.expand(6, 3)) for level in levels], dim=-1).detach()
    assert_close(got, torch.from_numpy(expected), rtol=1e-9, atol=1e-10)
    assert_close(got.exp().sum(-1), torch.ones(6, 3), **EXACT)
    assert_close(base.mean.detach(), (got.exp() * levels).sum(-1), **EXACT)


def test_discretized_logistic_far_in_the_tails() -> None:
    """A narrow scale far away: the log density is that of the tail, and its gradient is finite."""
    likelihood = DiscretizedLogisticLikelihood(1, scale=1e-3)
    loc = torch.tensor([[-2.0], [3.0], [0.5]], requires_grad=True)
    value = likelihood(loc).log_prob(torch.tensor([[1.0], [0.0], [128 / 255]]))
    assert_close(
        value[:2].detach(), torch.tensor([-(3 - 0.5 / 255) / 1e-3, -(3 - 0.5 / 255) / 1e-3]), rtol=1e-5, atol=0
    )
    (gradient,) = torch.autograd.grad(value.sum(), loc)
    assert gradient.isfinite().all()
    double = DiscretizedLogisticLikelihood(1, num_levels=256, scale=0.05).double()
    x = torch.arange(256, dtype=torch.float64)[:, None] / 255
    for loc_value in (-5.0, 0.3, 40.0):
        mass = double(torch.full((256, 1), loc_value, dtype=torch.float64)).log_prob(x).exp().sum()
        assert mass.item() == pytest.approx(1, abs=1e-12)


TABLE = ["gaussian", "poisson", {"name": "categorical", "num_categories": 3}, "gaussian", "bernoulli"]


def test_mixed_is_the_sum_of_its_columns(double: None) -> None:
    likelihood = MixedLikelihood(TABLE, initial_variance=0.4)
    parameters = torch.randn(4, 6, likelihood.num_outputs)
    x = likelihood(parameters).sample()
    gaussian, poisson, categorical, bernoulli = likelihood.parts
    assert likelihood.num_outputs == 2 + 1 + 3 + 1
    expected = (
        gaussian(parameters[..., :2]).log_prob(x[..., [0, 3]])
        + poisson(parameters[..., 2:3]).log_prob(x[..., 1:2])
        + categorical(parameters[..., 3:6]).log_prob(x[..., 2:3])
        + bernoulli(parameters[..., 6:]).log_prob(x[..., 4:])
    )
    assert_close(likelihood(parameters).log_prob(x), expected, **EXACT)
    assert gaussian.variance(parameters).item() == pytest.approx(0.4)
    assert_close(likelihood.point(parameters)[..., [0, 3]], parameters[..., :2])
    assert_close(likelihood(parameters).expand((2, 4, 6)).log_prob(x)[1], expected.detach(), **EXACT)


def test_mixed_is_a_whole_distribution(double: None) -> None:
    mixed = MixedLikelihood(TABLE)(torch.randn(6, 7))
    assert not mixed.has_rsample
    assert mixed.support.check(mixed.sample()).all()
    assert not mixed.support.check(torch.full((5,), 0.5))
    parts = mixed.base_dist.parts
    assert_close(mixed.variance[:, [0, 3]], parts[0].variance, **EXACT)
    assert_close(mixed.variance[:, 1], parts[1].variance[:, 0], **EXACT)
    numbers = MixedLikelihood(["gaussian", "laplace"])(torch.zeros(4, 2))
    assert numbers.has_rsample
    assert numbers.expand((3, 4)).rsample((2,)).shape == (2, 3, 4, 2)


def test_mixed_takes_a_likelihood_of_the_users(double: None) -> None:
    own = StudentTLikelihood(1, degrees=3.0, scale=0.5)
    mixed = MixedLikelihood(["gaussian", own, "gaussian"])
    randomise(mixed)
    f, x = torch.randn(4, 3), torch.randn(4, 3)
    assert_close(per_dimension(mixed, f, x)[:, 1], own(f[:, 2:]).log_prob(x[:, 1:2]), **EXACT)
    again = specification.build(specification.describe(mixed))
    again.load_state_dict(mixed.state_dict())
    assert torch.equal(again(f).log_prob(x), mixed(f).log_prob(x))
    with pytest.raises(ConfigError, match="entry 0 has data_dim=2"):
        MixedLikelihood([GaussianLikelihood(2)])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("gaussian", "columns: expected a list"),
        (3, "columns: expected a list"),
        ([], "columns: expected a list"),
        (["gaussian", 3], "entry 1 has no name, got 3"),
        ([{"name": 3}], "entry 0 has no name"),
        (["categorical"], "likelihood 'categorical'.*num_categories"),
        ([{"name": "laplace", "scale": -1.0}], "scale: expected a finite number > 0"),
    ],
)
def test_columns_that_are_no_likelihoods(columns: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        MixedLikelihood(columns)


def test_scale_on_its_floor_is_told() -> None:
    likelihood = LaplaceLikelihood(3, scale="per-dimension", minimum_scale=0.02)
    outputs = torch.zeros(2, 3)
    assert likelihood.floor_warning(outputs) is None
    with torch.no_grad():
        likelihood.scale.log_value[1] = -200.0
    assert "1 learned scale(s) sit on the floor minimum_scale=0.02" in (likelihood.floor_warning(outputs) or "")
    assert LaplaceLikelihood(3, scale=1e-9).floor_warning(outputs) is None
    mixed = MixedLikelihood(["poisson", {"name": "student-t", "minimum_scale": 0.02}, "gaussian"])
    assert mixed.floor_warning(outputs) is None
    with torch.no_grad():
        mixed.parts[1].scale.log_value.fill_(-200.0)
    assert (mixed.floor_warning(outputs) or "").startswith("student-t scale: 1 learned scale(s)")


def test_fit_warns_of_a_scale_on_its_floor() -> None:
    """A line in the plane, which the decoder reaches: the Laplace scale falls without end."""
    x = torch.linspace(-1, 1, 64)[:, None] * torch.tensor([1.0, 2.0])
    model = LatentModel(
        StandardNormalPrior(2), LinearDecoder(2, 2), LaplaceLikelihood(2, initial_variance=0.1, minimum_scale=0.1)
    )
    vae = probvae.VAE(model, DiagonalGuide(LinearEncoder(2), 2))
    with pytest.warns(FloorWarning, match="scale: 1 learned scale"):
        probvae.fit(vae, x, epochs=150, batch_size=64, learning_rate=0.05, schedule="constant", progress=False)


def test_a_scale_begins_above_its_floor() -> None:
    with pytest.raises(ArgumentError, match=r"minimum_scale: expected less than the initial scale 1e-05, got 0.001"):
        StudentTLikelihood(2, initial_variance=1e-10)


def test_recipes_put_the_floor_of_a_scale_below_small_data() -> None:
    from probvae.experiments.build import build_vae
    from probvae.experiments.recipe import merge, resolve

    for name in ("laplace", "student-t", "discretized-logistic"):
        recipe = resolve([merge({"model": {"likelihood": {"name": name}}})])
        scale = build_vae(recipe, 3, 1e-10).model.likelihood.scale
        assert 1e-6 < scale.value().item() < 2e-5
        assert scale.minimum == pytest.approx(1e-8)


def test_mixed_names_the_column() -> None:
    likelihood = MixedLikelihood(TABLE)
    x = torch.tensor([[0.5, 3.0, 2.0, -1.0, 1.0]])
    likelihood.check_support(x)
    with pytest.raises(SupportError, match=r"x: column 2: a categorical .* codes 0 to 2, got 3 \(row 0; 1 such"):
        likelihood.check_support(torch.tensor([[0.5, 3.0, 3.0, -1.0, 1.0]]))
    with pytest.raises(SupportError, match="x: column 1: a Poisson likelihood needs counts"):
        likelihood.check_support(torch.tensor([[0.5, 3.5, 2.0, -1.0, 1.0]]))


def test_mixed_guesses_its_columns() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.stack(
        [
            torch.randn(200, generator=generator),
            torch.randint(2, (200,), generator=generator).float(),
            torch.randint(4, (200,), generator=generator).float(),
            torch.poisson(torch.full((200,), 30.0), generator=generator),
            -torch.randint(4, (200,), generator=generator).float(),
        ],
        dim=1,
    )
    x[3, 1] = torch.nan
    expected = ["gaussian", "bernoulli", {"name": "categorical", "num_categories": 4}, "poisson", "gaussian"]
    assert MixedLikelihood.guess(x).arguments["columns"] == expected


def test_mixed_described_and_rebuilt() -> None:
    description = specification.describe(MixedLikelihood(TABLE))
    assert specification.build(description).num_outputs == 7
    for bad, error in (
        (["gauss"], UnknownNameError),
        ([{"num_categories": 3}], ConfigError),
        ([{"name": "gaussian", "noise": 3}], UnknownNameError),
        (["mixed"], ArgumentError),
        ([{"name": "gaussian", "variance": "optimal"}], ArgumentError),
    ):
        with pytest.raises(error):
            MixedLikelihood(bad if bad != ["mixed"] else [{"name": "mixed", "columns": ["gaussian"]}])


def test_values_between_codes_or_levels_have_no_density() -> None:
    with pytest.raises(ValueError, match="within the support"):
        CategoricalLikelihood(2, 3)(torch.zeros(1, 6)).log_prob(torch.tensor([[0.7, 1.0]]))
    with pytest.raises(ValueError, match="within the support"):
        DiscretizedLogisticLikelihood(2, 17)(torch.zeros(1, 2)).log_prob(torch.tensor([[0.03, 1.0]]))
    bytes_in_float32 = (torch.arange(256, dtype=torch.uint8).float() / 255)[:, None]
    assert DiscretizedLogisticLikelihood(1)(torch.zeros(1, 1)).log_prob(bytes_in_float32).isfinite().all()


@pytest.mark.parametrize("scale", [0.05, 1.0, 50.0])
def test_discretized_logistic_in_float32_is_that_in_float64(scale: float) -> None:
    """The bin's width is no difference of the edges' positions, which float32 rounds."""
    likelihood = DiscretizedLogisticLikelihood(1, scale=scale)
    x, loc = torch.arange(256.0)[:, None] / 255, torch.tensor([[0.3]])
    single = likelihood(loc).log_prob(x)
    double = likelihood.double()(loc.double()).log_prob(torch.arange(256.0).double()[:, None] / 255)
    assert_close(single.double(), double, rtol=1e-6, atol=2e-6)


def test_discretized_logistic_variance(double: None) -> None:
    p = DiscretizedLogisticLikelihood(3, num_levels=9, scale=0.3)(torch.randn(5, 3)).base_dist
    levels = (torch.arange(9.0) / 8)[:, None, None]
    probability = p.log_prob(levels.expand(9, 5, 3)).exp()
    assert_close(p.variance, (probability * (levels - p.mean) ** 2).sum(0), **EXACT)


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (CategoricalLikelihood(2, 3), [[1.0, 2.0], [0.5, 7.0]], r"got 0.5 \(row 1, column 0; 2 such.*scaling='none'"),
        (DiscretizedLogisticLikelihood(2), [[0.0, 1.0], [0.25, 1.0]], r"Use num_levels=5, which these data have"),
        (DiscretizedLogisticLikelihood(2), [[0.0, 1.0], [0.123456, 1.0]], "continuous-bernoulli"),
        (PoissonLikelihood(2), [[1.0, 2.0], [0.5, 1.0]], r"counts 0, 1, 2, ..., got 0.5 \(row 1, column 0; 1 such"),
        (NegativeBinomialLikelihood(2), [[1.0, -2.0], [3.0, 1.0]], r"got -2 \(row 0, column 1.*scaling='none'"),
        (CategoricalLikelihood(2, 3), [[1.0, 2.0], [3.0, 1.0]], r"codes 0 to 2, got 3 .*num_categories=4"),
        (DiscretizedLogisticLikelihood(2), [[0.0, 1.0], [0.5, 1.0]], r"levels k/255 in \[0, 1\], got 0.5 \(row 1"),
        (DiscretizedLogisticLikelihood(2, 17), [[0.0, 1.0], [0.5, 3.0]], r"got 3 \(row 1.*scaling='unit'"),
    ],
)
def test_data_outside_the_support(likelihood: Likelihood, x: list[list[float]], message: str) -> None:
    with pytest.raises(SupportError, match=message):
        likelihood.check_support(torch.tensor(x))


def test_exposure_multiplies_the_rates(double: None) -> None:
    log_rate, exposure = torch.randn(6, 3), torch.rand(6, 1) * 5
    for likelihood in (PoissonLikelihood(3), NegativeBinomialLikelihood(3, 2.0)):
        given = likelihood.given_exposure(exposure)
        assert_close(given(log_rate).mean, exposure * log_rate.exp())
        assert likelihood.exposure is None
        assert_close(given(log_rate.expand(2, 6, 3)).mean[1], exposure * log_rate.exp())
    mixed = MixedLikelihood(TABLE)
    parameters = torch.randn(6, mixed.num_outputs)
    assert_close(mixed.given_exposure(exposure)(parameters).mean[:, 1], exposure[:, 0] * parameters[:, 2].exp())
    assert_close(mixed(parameters).mean[:, 1], parameters[:, 2].exp())


def test_bad_exposure() -> None:
    with pytest.raises(ArgumentError, match=r"GaussianLikelihood has no rates to multiply.*PoissonLikelihood"):
        GaussianLikelihood(3).given_exposure(torch.ones(4, 1))
    with pytest.raises(ArgumentError, match="expected positive numbers, got 0"):
        PoissonLikelihood(3).given_exposure(torch.tensor([[1.0], [0.0]]))


def test_fit_with_exposure_finds_the_rates() -> None:
    """With W = 0 the best rate of one unit is sum_n x_n / sum_n e_n, the maximum of the likelihood."""
    torch.manual_seed(0)
    exposure = torch.rand(1000) * 20 + 1
    rates = torch.tensor([0.5, 2.0, 7.0])
    x = torch.poisson(exposure[:, None] * rates)
    model = LatentModel(StandardNormalPrior(1), LinearDecoder(1, 3), PoissonLikelihood(3))
    vae = probvae.VAE(model, DiagonalGuide(LinearEncoder(3), 1))
    torch.nn.init.zeros_(vae.model.decoder.weight).requires_grad_(False)
    torch.nn.init.zeros_(vae.guide.loc.weight)
    probvae.fit(vae, x, exposure=exposure, epochs=60, learning_rate=0.05, schedule="cosine", progress=False)
    assert_close(vae.model.decoder.bias.detach().exp(), x.sum(0) / exposure.sum(), rtol=5e-3, atol=0)
    assert elbo(vae.given(exposure=exposure), x).mean() > elbo(vae, x).mean() + 10


@pytest.mark.parametrize("name", sorted(Likelihood.registry))
def test_numbers_are_finite(name: str) -> None:
    for value in Likelihood.registry[name].example().own_parameters().values():
        assert value.isfinite().all()


def test_point_of_a_bernoulli_is_its_mean() -> None:
    parameters = torch.randn(4, 3)
    assert_close(BernoulliLikelihood(3).point(parameters), parameters.sigmoid())
