"""Densities against mpmath at extreme parameters, in float32 and float64, for every registered likelihood and prior.

The tolerance is 64 units in the last place of the dtype, times the largest term of a form in which nothing cancels. The
oracle is evaluated at the numbers that the dtype holds, so that rounding of the inputs is no error of the density.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import mpmath
import pytest
import torch
from mpmath import mpf

from probvae.inference.guides.low_rank_guide import StableLowRankNormal
from probvae.models import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    LaplaceLikelihood,
    LaplacePrior,
    Likelihood,
    MixedLikelihood,
    NegativeBinomialLikelihood,
    NormalPrior,
    PoissonLikelihood,
    Prior,
    StandardNormalPrior,
    StudentTLikelihood,
    StudentTPrior,
    UniformHypercubePrior,
)
from probvae.models.stable_densities import log_gamma_half_step

ULPS = 64
# Enough digits for differences of numbers as large as 1e8 log(1e8), and for l^2 where l is 1e-30.
mpmath.mp.dps = 250


class Known(NamedTuple):
    """log p(x) and the size of its largest term; mean and variance of x, or None where there are none."""

    log_prob: mpf
    size: mpf
    mean: mpf | None = None
    variance: mpf | None = None


class Case(NamedTuple):
    """Likelihoods of one column, the decoder's outputs for them, data, and the oracle."""

    likelihoods: list[Likelihood]
    parameters: list[tuple[float, ...]]
    data: Callable[[tuple[float, ...]], list[float]]
    oracle: Callable[[Likelihood, list[mpf], mpf], Known]


def bernoulli(_: Likelihood, parameters: list[mpf], x: mpf) -> Known:
    logit = parameters[0]
    signed = -logit if x == 1 else logit
    log_prob = -mpmath.log1p(mpmath.exp(signed))
    p = 1 / (1 + mpmath.exp(-logit))
    return Known(log_prob, abs(log_prob), p, p * (1 - p))


def continuous_bernoulli(_: Likelihood, parameters: list[mpf], x: mpf) -> Known:
    logit = parameters[0]
    if logit == 0:
        return Known(mpf(0), mpf(0), mpf(1) / 2, mpf(1) / 12)
    rate = abs(logit)
    normaliser = mpmath.log(rate / -mpmath.expm1(-rate))
    exponent = rate * (1 - x if logit > 0 else x)
    mean = 1 / -mpmath.expm1(-logit) - 1 / logit
    return Known(
        normaliser - exponent,
        max(abs(normaliser), exponent),
        mean,
        1 / logit**2 - 1 / (4 * mpmath.sinh(logit / 2) ** 2),
    )


def categorical(_: Likelihood, parameters: list[mpf], x: mpf) -> Known:
    top = max(parameters)
    weights = [mpmath.exp(logit - top) for logit in parameters]
    total = sum(weights)
    log_prob = parameters[int(x)] - top - mpmath.log(total)
    mean = sum(k * w for k, w in enumerate(weights)) / total
    return Known(log_prob, max(abs(log_prob), abs(top - parameters[int(x)]), mpf(1)), mean)


def discretized_logistic(likelihood: Likelihood, parameters: list[mpf], x: mpf) -> Known:
    loc, scale = parameters[0], mpf(likelihood.scale.value().item())
    steps = likelihood.num_levels - 1
    level = int(mpmath.nint(x * steps))

    def cdf(edge: mpf) -> mpf:
        return 1 / (1 + mpmath.exp(-(edge - loc) / scale))

    low = mpf(0) if level == 0 else cdf((level - mpf(1) / 2) / steps)
    high = mpf(1) if level == steps else cdf((level + mpf(1) / 2) / steps)
    log_prob = mpmath.log(high - low)
    # The edges are differences of numbers of order one, which are divided by the scale.
    size = max(abs(log_prob), (1 + abs(loc)) / scale)
    return Known(log_prob, size)


def gaussian(likelihood: Likelihood, parameters: list[mpf], x: mpf) -> Known:
    c = mpf(likelihood.variance(torch.tensor([float(p) for p in parameters], dtype=torch.float64)).item())
    exponent = (x - parameters[0]) ** 2 / (2 * c)
    normaliser = mpmath.log(2 * mpmath.pi * c) / 2
    return Known(-exponent - normaliser, max(exponent, abs(normaliser)), parameters[0], c)


def laplace(likelihood: Likelihood, parameters: list[mpf], x: mpf) -> Known:
    scale = mpf(likelihood.scale.value().item())
    exponent, normaliser = abs(x - parameters[0]) / scale, mpmath.log(2 * scale)
    return Known(-exponent - normaliser, max(exponent, abs(normaliser)), parameters[0], 2 * scale**2)


def student_t(likelihood: Likelihood, parameters: list[mpf], x: mpf) -> Known:
    return student_t_density(mpf(likelihood.degrees), parameters[0], mpf(likelihood.scale.value().item()), x)


def student_t_density(degrees: mpf, loc: mpf, scale: mpf, x: mpf) -> Known:
    square = ((x - loc) / scale) ** 2 / degrees
    tail = (degrees + 1) / 2 * mpmath.log1p(square)
    normaliser = mpmath.loggamma((degrees + 1) / 2) - mpmath.loggamma(degrees / 2) - mpmath.log(degrees * mpmath.pi) / 2
    log_prob = normaliser - mpmath.log(scale) - tail
    variance = scale**2 * degrees / (degrees - 2) if degrees > 2 else None
    return Known(log_prob, max(abs(normaliser), abs(mpmath.log(scale)), tail), loc if degrees > 1 else None, variance)


def poisson(_: Likelihood, parameters: list[mpf], x: mpf) -> Known:
    rate = mpmath.exp(parameters[0])
    log_prob = x * parameters[0] - rate - mpmath.loggamma(x + 1)
    # One unit in the last place of exp(f) is that many units of x - exp(f), however log p is written.
    return Known(log_prob, max(abs(log_prob), abs(x - rate)), rate, rate)


def negative_binomial(likelihood: Likelihood, parameters: list[mpf], x: mpf) -> Known:
    theta = mpf(likelihood.dispersion.value().item())
    mean = mpmath.exp(parameters[0])
    rising = mpmath.loggamma(x + theta) - mpmath.loggamma(theta) - mpmath.loggamma(x + 1)
    log_prob = rising - theta * mpmath.log1p(mean / theta) - x * mpmath.log1p(theta / mean)
    slope = theta * (x - mean) / (theta + mean)
    # The logits are log(mu) - log(theta), with a rounding of their own.
    size = max(abs(log_prob), abs(slope) * max(mpf(1), abs(parameters[0]), abs(mpmath.log(theta))))
    return Known(log_prob, size, mean, mean + mean**2 / theta)


def near_counts(parameters: tuple[float, ...]) -> list[float]:
    rate = math.exp(min(parameters[0], math.log(1e7)))
    around = [round(rate + k * math.sqrt(rate)) for k in (-30, -3, -1, 0, 1, 3, 30)]
    return sorted({float(max(0, count)) for count in [*around, 0, 1, 17, 10**6]})


LOGITS = [
    (sign * size,)
    for size in (0.0, 1e-30, 1e-4, 6e-3, 0.3, 0.999, 1.001, 3.0, 16.5, 40.0, 88.0, 700.0, 1e5)
    for sign in (1, -1)
]
LOCATIONS = [(0.0,), (1e-6,), (-3.0,), (1e4,)]
LOG_RATES = [(log_rate,) for log_rate in (-80.0, -7.0, -0.3, 0.0, 2.5, 6.9, 11.5, 13.8, 16.1)]

LIKELIHOODS: dict[str, Case] = {
    "bernoulli": Case([BernoulliLikelihood(1)], LOGITS, lambda _: [0.0, 1.0], bernoulli),
    "continuous-bernoulli": Case(
        [ContinuousBernoulliLikelihood(1)], LOGITS, lambda _: [0.0, 1e-3, 0.25, 0.5, 1.0], continuous_bernoulli
    ),
    "categorical": Case(
        [CategoricalLikelihood(1, 3)],
        [(0.0, 0.0, 0.0), (1e-5, 0.0, 3.0), (-80.0, 2.0, 90.0), (500.0, -500.0, 499.0)],
        lambda _: [0.0, 1.0, 2.0],
        categorical,
    ),
    "discretized-logistic": Case(
        [DiscretizedLogisticLikelihood(1, 256, scale) for scale in (1e-4, 1e-2, 1.0, 50.0)],
        [(0.0,), (0.5,), (0.999,), (2.0,)],
        lambda _: [0.0, 1 / 255, 128 / 255, 254 / 255, 1.0],
        discretized_logistic,
    ),
    "gaussian": Case(
        [GaussianLikelihood(1, variance=c) for c in (1e-12, 1e-4, 1.0, 1e6)],
        LOCATIONS,
        lambda p: [p[0], 0.0, p[0] + 1e-3, p[0] - 7.0, 1e5],
        gaussian,
    ),
    "laplace": Case(
        [LaplaceLikelihood(1, scale=s) for s in (1e-6, 1.0, 1e4)], LOCATIONS, lambda p: [p[0], 0.0, p[0] + 9.0], laplace
    ),
    "student-t": Case(
        [
            StudentTLikelihood(1, degrees=n, scale=s)
            for n in (1e-3, 0.5, 2.0, 4.0, 31.0, 1e4, 1e6, 1e9)
            for s in (1e-3, 2.0)
        ],
        LOCATIONS,
        lambda p: [p[0], p[0] + 1e-4, p[0] - 1.7, p[0] + 40.0, -1e5, 1e20],
        student_t,
    ),
    "poisson": Case([PoissonLikelihood(1)], LOG_RATES, near_counts, poisson),
    "negative-binomial": Case(
        [NegativeBinomialLikelihood(1, dispersion=t) for t in (1e-3, 0.3, 7.5, 1e3, 1e6, 1e10)],
        LOG_RATES,
        near_counts,
        negative_binomial,
    ),
}


def test_every_likelihood_has_an_oracle() -> None:
    assert LIKELIHOODS.keys() | {"mixed"} == Likelihood.registry.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
def test_log_prob_mean_and_variance_are_exact(name: str, dtype: torch.dtype) -> None:
    case, ulp = LIKELIHOODS[name], ULPS * torch.finfo(dtype).eps
    for likelihood in case.likelihoods:
        likelihood = likelihood.to(dtype)
        for parameters in case.parameters:
            p = likelihood(torch.tensor([parameters], dtype=dtype))
            held = [mpf(value) for value in torch.tensor(parameters, dtype=dtype).tolist()]
            for value in case.data(parameters):
                x = torch.tensor([[value]], dtype=dtype)
                known = case.oracle(likelihood, held, mpf(x.item()))
                found, where = p.log_prob(x).item(), (name, likelihood.extra_repr(), parameters, value)
                if abs(known.log_prob) < 0.5 * torch.finfo(dtype).max:
                    assert abs(found - known.log_prob) <= ulp * max(1, known.size), (
                        where,
                        found,
                        float(known.log_prob),
                    )
            for moment, expected in (("mean", known.mean), ("variance", known.variance)):
                if expected is not None and torch.finfo(dtype).tiny < abs(expected) < torch.finfo(dtype).max:
                    error = abs(getattr(p, moment).item() - expected) / abs(expected)
                    # E[x] of log-rates is exp(f), whose rounding is that of f.
                    assert error <= ulp * max(1, abs(held[0])), (where, moment)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
def test_gradients_are_exact(name: str, dtype: torch.dtype) -> None:
    """Against the oracle's own derivative in every output of the decoder."""
    case, ulp = LIKELIHOODS[name], ULPS * torch.finfo(dtype).eps
    for likelihood in case.likelihoods:
        likelihood = likelihood.to(dtype)
        for parameters in case.parameters:
            held = [mpf(value) for value in torch.tensor(parameters, dtype=dtype).tolist()]
            for value in case.data(parameters):
                decoded = torch.tensor([parameters], dtype=dtype, requires_grad=True)
                x = torch.tensor([[value]], dtype=dtype)
                known = case.oracle(likelihood, held, mpf(x.item()))
                kink = name == "laplace" and x.item() == parameters[0]
                if kink or abs(known.log_prob) > 0.5 * torch.finfo(dtype).max:
                    continue
                (gradient,) = torch.autograd.grad(likelihood(decoded).log_prob(x).sum(), decoded)
                for place, found in enumerate(gradient[0].tolist()):
                    expected = derivative(case, likelihood, held, place, mpf(x.item()))
                    size = max(mpf(1), abs(expected), gradient_size(name, likelihood, held, mpf(x.item())))
                    where = (name, likelihood.extra_repr(), parameters, value, place, found, float(expected))
                    assert abs(found - expected) <= ulp * size, where


def derivative(case: Case, likelihood: Likelihood, held: list[mpf], place: int, x: mpf) -> mpf:
    def along(step: mpf) -> mpf:
        moved = [value + (step if index == place else 0) for index, value in enumerate(held)]
        return case.oracle(likelihood, moved, x).log_prob

    step = mpf(10) ** -60
    return (along(step) - along(-step)) / (2 * step)


def gradient_size(name: str, likelihood: Likelihood, held: list[mpf], x: mpf) -> mpf:
    """The largest term of the gradient, where it is a difference by its nature."""
    if name in ("poisson", "negative-binomial"):
        return x + mpmath.exp(held[0])
    if name == "discretized-logistic":
        scale = mpf(likelihood.scale.value().item())
        return (1 + abs(held[0])) / scale**2
    return mpf(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_a_mixed_table_adds_its_columns_exactly(dtype: torch.dtype) -> None:
    columns = ["poisson", {"name": "student-t", "degrees": 1e6, "scale": 1.0}, "continuous-bernoulli", "poisson"]
    mixed = MixedLikelihood(columns).to(dtype)
    parameters = torch.tensor([[13.8, 11.5, 0.3, -40.0]], dtype=dtype)  # the two Poisson columns come first
    x = torch.tensor([[1e6, 0.7, 1e-3, 98765.0]], dtype=dtype)
    # The two kinds beside the counts have no weights of their own, and a scale of one in either dtype.
    poissons = PoissonLikelihood(2)(parameters[:, :2]).log_prob(x[:, [0, 3]])
    others = StudentTLikelihood(1, degrees=1e6, scale=1.0)(parameters[:, 2:3]).log_prob(x[:, 1:2])
    others = others + ContinuousBernoulliLikelihood(1)(parameters[:, 3:]).log_prob(x[:, 2:3])
    torch.testing.assert_close(
        mixed(parameters).log_prob(x), poissons + others, rtol=8 * torch.finfo(dtype).eps, atol=0
    )


@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
def test_draws_have_the_mean_and_the_variance(name: str) -> None:
    """In float32, at parameters where the fourth moment is not dominated by rare draws; six standard errors."""
    case, num = LIKELIHOODS[name], 20_000
    for likelihood in case.likelihoods:
        likelihood = likelihood.to(torch.float32)
        for parameters in case.parameters:
            p = likelihood(torch.tensor([parameters]))
            known = case.oracle(likelihood, [mpf(value) for value in parameters], mpf(0))
            if known.variance is None or not usual(name, likelihood, float(known.variance)):
                continue
            draws = p.sample((num,))[:, 0, 0].double()
            mean, variance = float(known.mean), float(known.variance)
            assert abs(draws.mean().item() - mean) <= 6 * math.sqrt(variance / num) + 1e-6 * abs(mean)
            fourth = (draws - mean).pow(4).mean().item()
            error = math.sqrt(max(fourth - variance**2, 0) / num)
            rounding = 1e-4 * variance + 1e-12 * mean**2
            assert abs((draws - mean).square().mean().item() - variance) <= 6 * error + rounding, (parameters, variance)


def usual(name: str, likelihood: Likelihood, variance: float) -> bool:
    if name == "student-t":
        return likelihood.degrees > 8 and likelihood.scale.value() > 1
    if name == "negative-binomial":
        return likelihood.dispersion.value() > 1 and variance > 1e-2
    return variance > 1e-2 if name in ("poisson", "bernoulli") else variance > 1e-8


def normal_prior(_: Prior, z: mpf) -> Known:
    return Known(-(z**2) / 2 - mpmath.log(2 * mpmath.pi) / 2, max(z**2 / 2, mpf(1)))


def laplace_prior(prior: Prior, z: mpf) -> Known:
    scale = mpf(float(torch.tensor(prior.scale)))
    return Known(-abs(z) / scale - mpmath.log(2 * scale), max(abs(z) / scale, abs(mpmath.log(2 * scale))))


def uniform_prior(prior: Prior, z: mpf) -> Known:
    return Known(-mpmath.log(mpf(prior.high) - mpf(prior.low)), mpf(1))


def student_t_prior(prior: Prior, z: mpf) -> Known:
    return student_t_density(mpf(prior.degrees), mpf(0), mpf(prior.scale), z)


# Priors of one density formula. Mixtures, flows, VampPrior and conditional priors are sums and maps of normals, whose
# parameters the tests beside this file draw at random.
PRIORS: dict[str, tuple[list[Prior], Callable[[Prior, mpf], Known]]] = {
    "standard-normal": ([StandardNormalPrior(1)], normal_prior),
    "normal": ([NormalPrior(1)], normal_prior),
    "laplace": ([LaplacePrior(1, scale=s) for s in (2.0**-20, 1.0, 2.0**14)], laplace_prior),
    "student-t": (
        [StudentTPrior(1, degrees=n, scale=s) for n in (0.5, 3.0, 1e4, 1e7) for s in (0.25, 8.0)],
        student_t_prior,
    ),
    "uniform-hypercube": ([UniformHypercubePrior(1, -1e6, 1e6), UniformHypercubePrior(1, -1e-3, 1.0)], uniform_prior),
}
COMPOSED_PRIORS = {"mixture", "flow", "vamp", "conditional-normal"}


def test_every_prior_is_here_or_composed_of_normals() -> None:
    assert PRIORS.keys() | COMPOSED_PRIORS == Prior.registry.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", sorted(PRIORS))
def test_prior_is_exact(name: str, dtype: torch.dtype) -> None:
    priors, oracle = PRIORS[name]
    for prior in priors:
        p = prior.to(dtype)()
        for value in (0.0, 1e-6, 0.5, -3.0, 40.0, -1e5):
            z = torch.tensor([value], dtype=dtype)
            if name == "uniform-hypercube" and not prior.low <= value <= prior.high:
                continue
            known = oracle(prior, mpf(z.item()))
            error = abs(p.log_prob(z).item() - known.log_prob)
            assert error <= ULPS * torch.finfo(dtype).eps * max(1, known.size), (name, value)


@pytest.mark.parametrize("degrees", [1e-6, 0.5, 1.0, 7.0, 15.5, 16.0, 33.3, 1e5, 1e12])
def test_the_half_step_of_log_gamma(degrees: float) -> None:
    h = mpf(degrees)
    expected = mpmath.loggamma(h + mpf(1) / 2) - mpmath.loggamma(h) - mpmath.log(h) / 2
    assert abs(log_gamma_half_step(degrees) - expected) <= 4e-16 * max(1, abs(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e2, 1e4])
def test_low_rank_guide_with_a_large_factor(size: float, scale: float, dtype: torch.dtype) -> None:
    """log q of its own draws; the distance y from the mean in units of the scale is known to one rounding."""
    for dim, rank in ((2, 1), (5, 2), (4, 4)):
        factor, loc = (size * torch.randn(dim, rank)).to(dtype), torch.randn(dim).to(dtype)
        variance = (scale * (0.5 + torch.rand(dim))).square().to(dtype)
        q = StableLowRankNormal(loc, factor, variance)
        z = q.sample()
        matrix = mpmath.matrix(factor.tolist())
        covariance = matrix * matrix.T + mpmath.diag([mpf(v) for v in variance.tolist()])
        offset = mpmath.matrix([mpf(a) - mpf(b) for a, b in zip(z.tolist(), loc.tolist(), strict=True)])
        quadratic = (offset.T * mpmath.lu_solve(covariance, offset))[0]
        expected = -(quadratic + mpmath.log(mpmath.det(covariance)) + dim * mpmath.log(2 * mpmath.pi)) / 2
        # In float64 one rounding of y, times the residual of order one, is what no form of the density avoids.
        distance = 0.0 if dtype == torch.float32 else float(((z - loc) / variance.sqrt()).abs().max())
        error = abs(q.log_prob(z).item() - expected)
        assert error <= ULPS * torch.finfo(dtype).eps * max(1, abs(expected), distance)
