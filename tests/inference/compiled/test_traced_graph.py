"""The traced graph against Pyro's own loss and gradients, with the same noise, at other weights and other data."""

from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.testing import assert_close

import probvae
from probvae.errors import TraceError
from probvae.foundation.adam import Adam
from probvae.foundation.seed import isolated_seed
from probvae.inference import (
    ConstrainedGuide,
    DiagonalGuide,
    ELBOObjective,
    Encoder,
    ExactGuide,
    FreeGuide,
    FullCovarianceGuide,
    Guide,
    IWAEObjective,
    MaskedEncoder,
    MLPEncoder,
    Objective,
)
from probvae.inference.compiled.check import disagreement
from probvae.inference.compiled.program import LossAndGradient
from probvae.inference.compiled.simplification import simplify
from probvae.inference.compiled.step_classes import Taken, TracedStep, step_where_finite
from probvae.models import (
    BernoulliLikelihood,
    Decoder,
    GaussianLikelihood,
    LatentModel,
    Likelihood,
    LinearDecoder,
    MLPDecoder,
    Prior,
    StandardNormalPrior,
    UniformHypercubePrior,
)
from probvae.models.covariates import ConditionedPrior

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
DTYPES = sorted(TOLERANCE, key=str)


class Pair(nn.Module):
    """A model and a guide, whatever they are."""

    def __init__(self, model: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        self.model, self.guide = model, guide


def check(program: LossAndGradient, example: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> None:
    """Traced at one batch, equal at another, with other weights and other noise; and the stream ends in one place."""
    run = simplify(program.record(example)).function()
    with torch.no_grad():
        for parameter in program.parameters:
            parameter.add_(0.05 * torch.randn_like(parameter))
    with isolated_seed(3), program.kept_buffers():
        expected, state = program(*other), torch.get_rng_state()
    with isolated_seed(3), torch.no_grad():
        found, state_found = run(*other), torch.get_rng_state()
    assert torch.equal(state, state_found)
    for one, two in zip(expected, found, strict=True):
        assert_close(two, one, rtol=TOLERANCE[one.dtype], atol=TOLERANCE[one.dtype] * float(one.abs().max()))


def program_of(pair: Pair | probvae.VAE, objective: Objective) -> LossAndGradient:
    pair.train()
    return LossAndGradient(
        lambda x, *weight: objective.step_loss(pair.model, pair.guide, x, *weight), [pair], pair.parameters()
    )


def check_pair(pair: Pair | probvae.VAE, objective: Objective, x: Tensor, dtype: torch.dtype) -> None:
    x = x.to(dtype)
    check(program_of(pair.to(dtype), objective), (x,), (x.flip(0),))


def small_vae(prior: Prior | None = None, likelihood: Likelihood | None = None) -> probvae.VAE:
    prior, likelihood = prior or StandardNormalPrior(2), likelihood or GaussianLikelihood(3, variance="learned")
    model = LatentModel(prior, MLPDecoder(prior.latent_dim, likelihood.num_outputs, hidden=(4,)), likelihood)
    return probvae.VAE(model, DiagonalGuide(MLPEncoder(likelihood.data_dim, hidden=(5,)), prior.latent_dim))


def with_guide(guide: Guide) -> Pair:
    """A guide of the registry with a model that it can serve."""
    model = getattr(guide, "_model", (None,))[0]
    prior: Prior = StandardNormalPrior(2)
    if isinstance(guide, ConstrainedGuide):
        prior = UniformHypercubePrior(2, guide.arguments["low"], guide.arguments["high"])
    return Pair(model or LatentModel(prior, LinearDecoder(2, 3), GaussianLikelihood(3, variance="learned")), guide)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(Objective.registry))
def test_objectives(name: str, dtype: torch.dtype) -> None:
    check_pair(small_vae(), Objective.registry[name].example(), torch.randn(6, 3), dtype)


def step_of(program: LossAndGradient, x: Tensor) -> TracedStep:
    return TracedStep(program, Adam(program.all_parameters), simplify(program.record((x,))))


def test_the_check_knows_the_rounding_of_importance_weights() -> None:
    """log w is about -500, and has a rounding of 3e-5: so has each weight, and a gradient that is their mean."""
    model = LatentModel(StandardNormalPrior(4), MLPDecoder(4, 784, (30,)), BernoulliLikelihood(784))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(784, (30,)), 4))
    program, x = program_of(vae, IWAEObjective(num_particles=20)), torch.rand(64, 784).round()
    step, loosest = step_of(program, x), 1e-3
    exact = step.run
    assert disagreement(step, (x,)) is None
    losses, gradients = slice(len(program(x)) - len(program.parameters)), slice(-len(program.parameters), None)

    def off(x: Tensor) -> list[Tensor]:
        found = list(exact(x))
        return [*found[losses], *(gradient + loosest * gradient.abs().max() for gradient in found[gradients])]

    step.run = off
    assert "the gradient of parameter" in str(disagreement(step, (x,)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("error", [2e-5, 1e-3])
def test_the_check_sees_an_error_of_a_gradient_and_of_a_loss(error: float, dtype: torch.dtype) -> None:
    """Relative to the largest entry of the gradient, and to the largest of the losses."""
    program, x = program_of(small_vae().to(dtype), ELBOObjective()), torch.randn(32, 3, dtype=dtype)
    step = step_of(program, x)
    exact = step.run
    assert disagreement(step, (x,)) is None
    num_losses = len(program(x)) - len(program.parameters)
    for number in range(len(program(x))):

        def off(x: Tensor, number: int = number) -> list[Tensor]:
            found = list(exact(x))
            size = max(found[:num_losses]) if number < num_losses else found[number].abs().max()
            wrong = found[number] + error * TOLERANCE[dtype] / 1e-5 * size
            return [*found[:number], wrong, *found[number + 1 :]]

        step.run = off
        place = "the loss" if number == 0 else f"output {number} "
        expected = place if number < num_losses else f"the gradient of parameter {number - num_losses} "
        assert expected in str(disagreement(step, (x,)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("part", ["step", "second", "buffer"])
def test_the_check_sees_a_wrong_weight_a_wrong_moment_and_a_wrong_buffer(part: str, dtype: torch.dtype) -> None:
    """The losses and gradients are right, and the state after the step is not: all is put back afterwards."""
    pair = small_vae().to(dtype).train()
    pair.guide.encoder.network.append(nn.BatchNorm1d(5, dtype=dtype))
    program, x = program_of(pair, ELBOObjective()), torch.randn(32, 3, dtype=dtype)
    step = step_of(program, x)
    assert disagreement(step, (x,)) is None
    tensors = [*step.optimizer.parameters, *step.optimizer.first, *step.optimizer.second, *program.buffers()]
    before = [tensor.clone() for tensor in tensors]
    changed, what = {
        "step": (step.optimizer.parameters[3], "the step of parameter 3 "),
        "second": (step.optimizer.second[3], "the squared gradient of parameter 3 "),
        "buffer": (program.buffers()[-2], "buffer "),
    }[part]

    class Wrong(type(step)):  # type: ignore[misc]
        """Adds a little after the step."""

        def __call__(self, *batch: Tensor) -> Taken:
            taken = super().__call__(*batch)
            with torch.no_grad():
                changed.add_(3 * TOLERANCE[dtype] * changed.abs().max())
            return taken

    step.__class__ = Wrong
    assert what in str(disagreement(step, (x,)))
    assert all(torch.equal(one, two) for one, two in zip(tensors, before, strict=True))


@pytest.mark.parametrize("change", [{"betas": (0.95, 0.999)}, {"betas": (0.9, 0.99)}, {"eps": 1e-2}], ids=str)
def test_the_check_sees_another_adam(change: dict[str, Any]) -> None:
    program, x = program_of(small_vae(), ELBOObjective()), torch.randn(32, 3)
    step = step_of(program, x)

    class OtherAdam(TracedStep):
        """Takes the step of an optimizer whose constants are not those of the fit."""

        def __call__(self, *batch: Tensor) -> Taken:
            ours, others = self.optimizer, Adam(program.all_parameters, **change)
            others.first, others.second, others.steps = ours.first, ours.second, ours.steps
            others.learning_rate = ours.learning_rate
            return step_where_finite(others, *self.losses_and_gradients(*batch))

    step.__class__ = OtherAdam
    assert disagreement(step, (x,)) is not None


@pytest.mark.parametrize("free_bits", [0.0, 0.4])
@pytest.mark.parametrize("name", sorted(set(Objective.registry) - {"mmd"}))
def test_particles_beta_free_bits_and_the_weight_of_a_warm_up(name: str, free_bits: float) -> None:
    objective = Objective.registry[name](num_particles=3, beta=0.7, free_bits=free_bits)
    x, weights = torch.randn(6, 3).double(), [torch.tensor(value, dtype=torch.float64) for value in (0.1, 0.9)]
    check(program_of(small_vae().double(), objective), (x, weights[0]), (x.flip(0), weights[1]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(set(Guide.registry) - {"free", "exact"}))
def test_guides(name: str, dtype: torch.dtype) -> None:
    check_pair(with_guide(Guide.registry[name].example()), ELBOObjective(), torch.randn(6, 3), dtype)


def test_a_guide_that_checks_its_data_is_refused() -> None:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3, variance="learned"))
    with pytest.raises(TraceError, match="reads the value of a tensor"):
        program_of(Pair(model, ExactGuide(model)), ELBOObjective()).record((torch.randn(6, 3),))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(Prior.registry))
def test_priors(name: str, dtype: torch.dtype) -> None:
    prior = Prior.registry[name].example()
    if hasattr(prior, "num_covariates"):
        prior = ConditionedPrior(prior, torch.randn(1, prior.num_covariates))
    pair = small_vae(prior)
    if isinstance(prior, UniformHypercubePrior):
        pair.guide = ConstrainedGuide(pair.guide, prior.arguments["low"], prior.arguments["high"])
    check_pair(pair, ELBOObjective(), torch.randn(6, 3), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(Likelihood.registry))
def test_likelihoods(name: str, dtype: torch.dtype) -> None:
    likelihood = Likelihood.registry[name].example()
    x = likelihood(torch.randn(6, likelihood.num_outputs)).sample()
    check_pair(small_vae(likelihood=likelihood), ELBOObjective(), x, dtype)


@pytest.mark.parametrize("name", sorted(Decoder.registry))
def test_decoders(name: str) -> None:
    decoder = Decoder.registry[name].example()
    model = LatentModel(StandardNormalPrior(decoder.latent_dim), decoder, GaussianLikelihood(decoder.num_outputs))
    guide = DiagonalGuide(MLPEncoder(model.data_dim, hidden=(5,)), model.latent_dim)
    check_pair(Pair(model, guide), IWAEObjective(2), torch.randn(6, model.data_dim), torch.float64)


@pytest.mark.parametrize("name", sorted(Encoder.registry))
def test_encoders(name: str) -> None:
    encoder = Encoder.registry[name].example()
    model = LatentModel(
        StandardNormalPrior(2), LinearDecoder(2, encoder.data_dim), GaussianLikelihood(encoder.data_dim)
    )
    pair = Pair(model, FullCovarianceGuide(encoder, 2))
    check_pair(pair, ELBOObjective(), torch.randn(6, encoder.data_dim), torch.float64)


@pytest.mark.parametrize("name", sorted(Likelihood.registry))
def test_missing_entries_elsewhere_than_in_the_traced_batch(name: str) -> None:
    likelihood = Likelihood.registry[name].example()
    x = likelihood(torch.randn(6, likelihood.num_outputs)).sample().double()
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, likelihood.num_outputs), likelihood, missing="mask")
    encoder = MaskedEncoder(MLPEncoder(2 * model.data_dim, hidden=(5,)), model.data_dim)
    vae = probvae.VAE(model, DiagonalGuide(encoder, 2)).double()
    x[2, 0] = torch.nan
    check(program_of(vae, ELBOObjective()), (x,), (x.flip(0),))


def test_dropout_and_batch_normalisation() -> None:
    """Their noise is the stream's, and running means move as they do in Pyro's own step."""
    pair = small_vae().double().train()
    pair.guide.encoder.network.append(nn.BatchNorm1d(5).double()).append(nn.Dropout(0.4))
    x = torch.randn(6, 3, dtype=torch.float64)
    check(program_of(pair, ELBOObjective()), (x,), (x.flip(0),))
    assert pair.guide.encoder.network[-2].num_batches_tracked == 1  # the graph's own run, not the tracing


def plain_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 0.5).to_event(1), obs=x)


class PlainGuide(nn.Module):
    """A guide that knows nothing of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.linear(x), 0.7).to_event(1))


@pytest.mark.parametrize(
    "loss",
    [
        Trace_ELBO(),
        Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
        TraceMeanField_ELBO(),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_losses_of_pyros_own(loss: pyro.infer.ELBO) -> None:
    guide = PlainGuide()
    program = LossAndGradient(lambda x: [loss.differentiable_loss(plain_model, guide, x)], [guide], guide.parameters())
    x = torch.randn(5, 1)
    check(program, (x,), (x.flip(0),))


def test_a_program_whose_structure_depends_on_data_is_refused() -> None:
    guide = PlainGuide()

    def losses(x: Tensor) -> list[Tensor]:
        return [guide.linear(x).sum() if x.sum() > 0 else guide.linear(x).prod()]

    with pytest.raises(TraceError, match="reads the value of a tensor"):
        LossAndGradient(losses, [guide], guide.parameters()).record((torch.randn(5, 1),))


def test_a_guide_that_looks_its_data_up_is_refused() -> None:
    pair = with_guide(FreeGuide.example())
    with pytest.raises(TraceError, match="reads the value of a tensor"):
        program_of(pair, ELBOObjective()).record((pair.guide.x,))


def test_a_program_that_keeps_a_state_of_its_own_is_refused() -> None:
    guide, state = PlainGuide(), torch.zeros(())

    def losses(x: Tensor) -> list[Tensor]:
        state.add_(1)
        return [guide.linear(x).sum() * state]

    with pytest.raises(TraceError, match="neither a parameter nor a buffer"):
        LossAndGradient(losses, [guide], guide.parameters()).record((torch.randn(5, 1),))


def test_simplification_leaves_fewer_operators() -> None:
    recording = program_of(small_vae(), ELBOObjective()).record((torch.randn(6, 3),))
    num_operators = len(recording.operators)
    assert len(simplify(recording).operators) < 0.75 * num_operators
