"""The contracts of the components, for the authors of new ones: each check raises AssertionError with the reason.

    from probvae.testing import check_prior

    def test_my_prior():
        check_prior(MyPrior.example())

The components should be small (at most three latent dimensions: total mass is measured by importance sampling). The
checks draw random numbers of their own and leave the component as it was.

A contract is no oracle: a wrong formula can be a density too. Write the formula out by hand as well.
"""

import copy
from typing import Any, cast

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import constraints

from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.traces import log_weights
from probvae.inference.encoders import Encoder
from probvae.inference.guides import Guide, PerDatumGuide
from probvae.inference.objectives import Objective
from probvae.inference.pair import VAE
from probvae.models import Decoder, LatentModel, Likelihood, Prior
from probvae.models.covariates import CovariatePrior

# Standard errors between an estimate and the truth: one false alarm in two million checks
NUM_SIGMAS = 5.0
NUM_SAMPLES = 50_000


def check_prior(prior: Prior) -> None:
    """Shapes, dtype, a finite gradient for every parameter, total mass one, and draws that follow the density."""
    with isolated_seed(0):
        p = _built(prior)
        z = p.sample(torch.Size((7, 3)))
        _same("batch_shape", tuple(p.batch_shape), ())
        _same("event_shape", tuple(p.event_shape), (prior.latent_dim,))
        _same("sample shape", tuple(z.shape), (7, 3, prior.latent_dim))
        _same("sample dtype", z.dtype, _dtype(prior))
        log_prob = p.log_prob(z)
        _same("log_prob shape", tuple(log_prob.shape), (7, 3))
        _same("log_prob dtype", log_prob.dtype, _dtype(prior))
        check_gradients(prior, log_prob)
        _check_density(_built(prior))


def _built(prior: Prior) -> dist.TorchDistribution:
    """p(z), or p(z|y) at one y of our own."""
    num_covariates = getattr(prior, "num_covariates", None)
    if num_covariates is None:
        return prior()
    y = torch.linspace(-1.0, 1.0, num_covariates, dtype=_dtype(prior))
    return cast(CovariatePrior, prior).given(y.unsqueeze(0))


def check_likelihood(likelihood: Likelihood, dtype: torch.dtype | None = None) -> None:
    """Shapes, dtype, gradients for parameters and decoder outputs, draws in the support that follow the density.

    A likelihood that takes an exposure has a mean in proportion to it.
    ``dtype`` is the dtype of the decoder's outputs, for a likelihood without a tensor that tells.
    """
    dtype = dtype or _dtype(likelihood)
    with isolated_seed(0):
        parameters = torch.randn(6, likelihood.num_outputs, dtype=dtype).requires_grad_()
        p = likelihood(parameters)
        _same("batch_shape", tuple(p.batch_shape), (6,))
        _same("event_shape", tuple(p.event_shape), (likelihood.data_dim,))
        x = p.sample()
        _same("sample dtype", x.dtype, dtype)
        _check_support(likelihood, x)
        log_prob = p.log_prob(x)
        _same("log_prob shape", tuple(log_prob.shape), (6,))
        check_gradients(likelihood, log_prob)
        _check_finite_gradient("the decoder's outputs", _gradients(log_prob, [parameters])[0])
        _same("point shape", tuple(likelihood.point(parameters).shape), (6, likelihood.data_dim))
        _same("point dtype", likelihood.point(parameters).dtype, dtype)
        _check_draws(likelihood(parameters.detach()))
        if likelihood.takes_exposure:
            _check_exposure(likelihood, parameters.detach())
        stacked = likelihood(parameters.detach().expand(2, *parameters.shape))
        _same("batch_shape with a leading dimension", tuple(stacked.batch_shape), (2, 6))


def check_decoder(decoder: Decoder) -> None:
    """Shapes for any number of leading dimensions, dtype, gradients, and rows that do not look at each other."""
    with isolated_seed(0):
        z = torch.randn(4, 5, decoder.latent_dim, dtype=_dtype(decoder))
        output = decoder(z)
        _same("output shape", tuple(output.shape), (4, 5, decoder.num_outputs))
        _same("output dtype", output.dtype, _dtype(decoder))
        _check_rows(decoder, z, (1, slice(2, 3)))
        check_gradients(decoder, output)


def check_encoder(encoder: Encoder, dtype: torch.dtype | None = None) -> None:
    """Shapes, dtype, gradients, and rows that do not look at each other."""
    dtype = dtype or _dtype(encoder)
    with isolated_seed(0):
        x = torch.randn(4, encoder.data_dim, dtype=dtype)
        features = encoder(x)
        _same("output shape", tuple(features.shape), (4, encoder.num_features))
        _same("output dtype", features.dtype, dtype)
        _check_rows(encoder, x, slice(1, 2))
        check_gradients(encoder, features)


def _check_rows(network: nn.Module, x: Tensor, row: Any) -> None:
    """A row's output does not depend on the others; as the network is used, without dropout."""
    network = copy.deepcopy(network).eval()
    _close("rows: expected the same output for a row alone", network(x[row]), network(x)[row])


def check_guide(guide: Guide, data_dim: int = 3) -> None:
    """The contract of a guide, as a distribution and as a Pyro program.

    Shapes, dtype, gradients (of the density, and through reparameterised draws), total mass one and draws that follow
    the density for every datum, rows that do not look at each other; the one site ``"z"`` in a plate over the data,
    and Pyro's parameter store left alone.
    """
    with isolated_seed(0):
        x = torch.randn(4, data_dim, dtype=_dtype(guide))
        if isinstance(guide, PerDatumGuide):
            x = guide.x[:4]
        q = guide.distribution(x)
        _same("batch_shape", tuple(q.batch_shape), (4,))
        _same("event_shape", tuple(q.event_shape), (guide.latent_dim,))
        z = q.rsample() if q.has_rsample else q.sample()
        _same("sample shape", tuple(z.shape), (4, guide.latent_dim))
        _same("sample dtype", z.dtype, _dtype(guide))
        check_gradients(guide, q.log_prob(z.detach()))
        if q.has_rsample:
            check_gradients(guide, guide.distribution(x).rsample(), " through a draw")
        used = copy.deepcopy(guide).eval()  # dropout is noise, not a row that looks at another
        alone = used.distribution(x[2:3]).log_prob(z[2:3].detach())
        _close("rows: expected the same q_x for a row alone", alone, used.distribution(x).log_prob(z.detach())[2:3])
        _check_density(guide.distribution(x))
        _check_guide_program(guide, x)


def check_objective(objective: Objective, vae: VAE | None = None) -> None:
    """(N,) finite nats per datum, gradients for every parameter, and a step's loss that is minus their mean."""
    vae = copy.deepcopy(vae) if vae is not None else VAE.example()
    with isolated_seed(0):
        x = torch.randn(6, vae.model.data_dim, dtype=_dtype(vae))
        with isolated_seed(1):
            value = objective(vae.model, vae.guide, x)
        _same("shape", tuple(value.shape), (6,))
        assert value.isfinite().all(), f"values: expected finite nats, got {value}"
        with isolated_seed(1):
            step = objective.step_loss(vae.model, vae.guide, x)
        _close("step_loss: expected minus the objective's mean", step.loss, -value.mean())
        _same("step_loss's KL, shape", tuple(step.kl.shape), ())
        check_gradients(vae, value)
        check_gradients(vae, step.loss)


def check_pair(model: LatentModel, guide: Guide) -> None:
    """Model and guide fit together: they have the same latent sites, and log w is finite, one number a datum."""
    with isolated_seed(0):
        x = model(num_data=5).detach()
        guide_trace, model_trace = (poutine.trace(program).get_trace(x) for program in (guide, model))
        _same("the guide's sites", _latent_sites(guide_trace), _latent_sites(model_trace))
        log_weight = log_weights(model, guide, x, num_samples=3).log_weight
        _same("log w shape", tuple(log_weight.shape), (3, 5))
        assert log_weight.isfinite().all(), f"log w: expected finite values, got {log_weight}"


def check_gradients(module: nn.Module, values: Tensor, how: str = "") -> None:
    """Every trainable parameter of ``module`` gets a finite gradient from the sum of ``values`` (...)."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    for name, gradient in zip(trained, _gradients(values, list(trained.values())), strict=True):
        _check_finite_gradient(name, gradient, how)


def _gradients(values: Tensor, inputs: list[Tensor]) -> list[Tensor | None]:
    if not inputs or not values.requires_grad:
        return [None] * len(inputs)
    return list(torch.autograd.grad(values.sum(), inputs, retain_graph=True, allow_unused=True))


def _check_finite_gradient(name: str, gradient: Tensor | None, how: str = "") -> None:
    verb = "get" if name.endswith("s") else "gets"
    assert gradient is not None, f"{name} {verb} no gradient{how}"
    assert gradient.isfinite().all(), f"{name} {verb} a gradient that is not finite{how}"


def _check_support(likelihood: Likelihood, x: Tensor) -> None:
    try:
        likelihood.check_support(x)
    except Exception as error:
        raise AssertionError(
            f"check_support: expected to accept the likelihood's own draws, got {type(error).__name__}: {error}"
        ) from error


@torch.no_grad()
def _check_draws(p: dist.TorchDistribution) -> None:
    support: Any = p.support
    if isinstance(getattr(support, "base_constraint", None), constraints.cat):
        return  # columns of several types, each of which has a contract of its own
    if support.is_discrete:
        _check_frequencies(p)
    else:
        _check_density(p)


def _check_frequencies(p: dist.TorchDistribution) -> None:
    """For discrete p: in each dimension a value is drawn as often as its probability says."""
    base: Any = p.base_dist if isinstance(p, torch.distributions.Independent) else p
    drawn = base.sample(torch.Size((NUM_SAMPLES,))).contiguous()
    values = drawn.unique()
    number = torch.searchsorted(values, drawn)
    counts = drawn.new_zeros(len(values), *drawn.shape[1:]).scatter_add_(0, number, torch.ones_like(drawn))
    got = counts / NUM_SAMPLES
    expected = base.log_prob(values.reshape(-1, *[1] * (drawn.ndim - 1)).expand_as(got)).exp()
    error = (expected * (1 - expected).clamp(min=0) / NUM_SAMPLES).sqrt()
    far = (got - expected).abs() > NUM_SIGMAS * (error + 1 / NUM_SAMPLES)
    if far.any():
        first = tuple(far.nonzero()[0].tolist())
        raise AssertionError(
            f"draws: expected {values[first[0]]:g} in a share of {expected[first]:.4f}, as its probability says, got "
            f"{got[first]:.4f}"
        )


def _check_exposure(likelihood: Likelihood, parameters: Tensor) -> None:
    exposure = torch.linspace(0.5, 3.0, len(parameters), dtype=parameters.dtype).unsqueeze(1)
    exposed = likelihood.given_exposure(exposure)
    assert likelihood.exposure is None, "given_exposure: expected another likelihood, got this one with an exposure"
    # A mixed table has columns that no exposure multiplies
    ratio = exposed.point(parameters) / likelihood.point(parameters)
    counts = (ratio - 1).abs().max(0).values > 0.1
    assert counts.any(), "exposure: expected a mean in proportion to it, got the same one"
    _close("exposure: expected a mean in proportion to it", ratio[:, counts], exposure.expand_as(ratio[:, counts]))


def _check_guide_program(guide: Guide, x: Tensor) -> None:
    stored = set(pyro.get_param_store().keys())
    trace = poutine.trace(guide).get_trace(x)
    sites = _latent_sites(trace)
    _same("sites", sorted(sites), ["z"])
    _same("site z, shape", sites["z"], (len(x), guide.latent_dim))
    plates = [frame.name for frame in trace.nodes["z"]["cond_indep_stack"]]
    _same("plates of the site z", plates, ["data"])
    stray = sorted(set(pyro.get_param_store().keys()) - stored)
    assert not stray, f"parameter store: expected to be left alone, got {stray}"


def _latent_sites(trace: Trace) -> dict[str, tuple[int, ...]]:
    """The shape of every site that is drawn, by name."""
    nodes: dict[str, Any] = trace.nodes
    sites = {n: site for n, site in nodes.items() if site["type"] == "sample" and not site_is_subsample(site)}
    return {name: tuple(site["value"].shape) for name, site in sites.items() if not site["is_observed"]}


@torch.no_grad()
def _check_density(p: dist.TorchDistribution) -> None:
    """By importance sampling from a wide Student t: the density's integral is one, and its own draws follow it."""
    drawn = p.sample(torch.Size((NUM_SAMPLES,)))
    zero = drawn.new_zeros(p.event_shape)
    wide = dist.StudentT(3.0, zero, torch.full_like(zero, 2.0)).to_event(1)
    z = wide.sample(torch.Size((NUM_SAMPLES, *[1] * len(p.batch_shape))))
    mass = (_log_density(p, z) - wide.log_prob(z)).exp()
    mean, error = _estimate(mass)
    assert ((mean - 1).abs() < NUM_SIGMAS * error).all(), f"total mass: expected 1, got {mean} +- {error}"
    # the characteristic function is bounded, so that both estimates have an error
    direction = torch.linspace(1.0, 2.0, zero.numel(), dtype=zero.dtype, device=zero.device).reshape(zero.shape)
    for name, statistic in {"cos": torch.cos, "sin": torch.sin}.items():
        for frequency in (0.5, 1.0):
            expected, its_error = _estimate(mass * statistic(frequency * (z * direction).sum(-1)))
            got, own_error = _estimate(statistic(frequency * (drawn * direction).sum(-1)))
            near = (got - expected).abs() < NUM_SIGMAS * (its_error.square() + own_error.square()).sqrt()
            assert near.all(), (
                f"draws: expected to follow the density, whose mean of {name}(t.z) is {expected}, got {got}"
            )


def _log_density(p: dist.TorchDistribution, z: Tensor) -> Tensor:
    """log p(z), and minus infinity outside the support, where torch raises an error."""
    support: Any = p.support
    z = z.expand(len(z), *p.batch_shape, *p.event_shape)
    inside = support.check(z)
    if inside.ndim == z.ndim:
        inside = inside.all(-1)
    return p.log_prob(torch.where(inside.unsqueeze(-1), z, p.sample())).masked_fill(~inside, -torch.inf)


def _estimate(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the draws and its standard error."""
    return values.mean(0), values.std(0) / len(values) ** 0.5


def _dtype(module: nn.Module) -> torch.dtype:
    tensors = [*module.parameters(), *module.buffers()]
    floating = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    return floating[0] if floating else torch.get_default_dtype()


def _same(what: str, got: object, expected: object) -> None:
    assert got == expected, f"{what}: expected {expected}, got {got}"


def _close(what: str, got: Tensor, expected: Tensor) -> None:
    tolerance = 1e-4 if expected.dtype == torch.float32 else 1e-9
    near = got.shape == expected.shape and torch.allclose(got, expected, rtol=tolerance, atol=tolerance)
    assert near, f"{what}, got {got.tolist()} and {expected.tolist()}"
