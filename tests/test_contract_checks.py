"""The checks of probvae.testing, shown components with faults put in on purpose: each must say what is wrong."""

import copy
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from probvae import testing
from probvae.inference import DiagonalGuide, ELBOObjective, Encoder, Guide, LinearEncoder, Objective
from probvae.inference.objectives import StepLoss
from probvae.inference.pair import VAE
from probvae.models import Decoder, GaussianLikelihood, Likelihood, Prior


class GoodPrior(Prior):
    """N(m, s^2), diagonal."""

    latent_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([0.3, -0.4]))
        self.log_scale = nn.Parameter(torch.tensor([0.1, -0.2]))

    def base(self) -> dist.TorchDistribution:
        return dist.Normal(self.loc, self.log_scale.exp())

    def forward(self) -> dist.TorchDistribution:
        return self.base().to_event(1)

    @classmethod
    def example(cls) -> "GoodPrior":
        return cls()


class BatchPrior(GoodPrior):
    def forward(self) -> dist.TorchDistribution:
        return self.base()


class OtherSize(GoodPrior):
    latent_dim = 3


class Detached(GoodPrior):
    def base(self) -> dist.TorchDistribution:
        return dist.Normal(self.loc, self.log_scale.detach().exp())


class Unused(GoodPrior):
    def base(self) -> dist.TorchDistribution:
        return dist.Normal(0.3 * torch.ones(2), torch.ones(2))


class HalfMass(dist.Normal):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - 0.05


class Unnormalised(GoodPrior):
    def base(self) -> dist.TorchDistribution:
        return HalfMass(self.loc, self.log_scale.exp())


class InfiniteGradient(GoodPrior):
    def base(self) -> dist.TorchDistribution:
        return dist.Normal(self.loc + (self.log_scale - self.log_scale).abs().sqrt(), self.log_scale.exp())


class SinglePrecision(GoodPrior):
    def base(self) -> dist.TorchDistribution:
        return dist.Normal(self.loc.float(), self.log_scale.exp().float())


class OtherDraws(dist.Normal):
    """Draws that do not follow the density."""

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.loc + 1.2 * (super().rsample(sample_shape) - self.loc)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.rsample(sample_shape).detach()


class Mismatched(GoodPrior):
    def base(self) -> dist.TorchDistribution:
        return OtherDraws(self.loc, self.log_scale.exp())


def test_a_good_prior_passes_and_is_left_as_it_was() -> None:
    prior, state = GoodPrior(), torch.get_rng_state()
    before = copy.deepcopy(prior.state_dict())
    for dtype in (torch.float32, torch.float64):
        testing.check_prior(GoodPrior().to(dtype))
    testing.check_prior(prior)
    assert all(torch.equal(before[name], tensor) for name, tensor in prior.state_dict().items())
    assert all(parameter.grad is None for parameter in prior.parameters())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (BatchPrior, r"batch_shape: expected \(\), got \(2,\)"),
        (OtherSize, r"event_shape: expected \(3,\), got \(2,\)"),
        (Detached, "log_scale gets no gradient"),
        (Unused, "loc gets no gradient"),
        (Unnormalised, r"total mass: expected 1, got 0\.[89]"),
        (Mismatched, "draws: expected to follow the density"),
        (InfiniteGradient, "log_scale gets a gradient that is not finite"),
        (lambda: SinglePrecision().double(), r"sample dtype: expected torch\.float64, got torch\.float32"),
    ],
)
def test_faults_of_a_prior(prior: Callable[[], Prior], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_prior(prior())


class PlainLikelihood(Likelihood):
    """N(f(z), 1)."""

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return dist.Normal(parameters, torch.ones_like(parameters)).to_event(1)

    def check_support(self, x: Tensor) -> None:
        pass

    @classmethod
    def example(cls) -> "PlainLikelihood":
        return cls(3)


class NoEvent(PlainLikelihood):
    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return dist.Normal(parameters, torch.ones_like(parameters))


class DeafToTheDecoder(PlainLikelihood):
    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return super().distribution(parameters.detach())


class RefusesItself(PlainLikelihood):
    def check_support(self, x: Tensor) -> None:
        if x.min() < 0:
            raise ValueError("x: expected positive values")


class SinglePrecisionLikelihood(PlainLikelihood):
    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return super().distribution(parameters.float())


class OtherNoise(PlainLikelihood):
    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return OtherDraws(parameters, torch.ones_like(parameters)).to_event(1)


class OtherRate(dist.Poisson):
    """Draws of another rate than the density's."""

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return torch.poisson(0.9 * self.rate.expand(self._extended_shape(sample_shape)))


class OtherCounts(PlainLikelihood):
    takes_exposure = True

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return OtherRate(parameters.exp()).to_event(1)


class DeafToExposure(PlainLikelihood):
    takes_exposure = True

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return dist.Poisson(parameters.exp()).to_event(1)


class SquaredExposure(DeafToExposure):
    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return super().distribution(self.exposed(self.exposed(parameters)))


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        (OtherNoise, "draws: expected to follow the density"),
        (OtherCounts, r"draws: expected \d+ in a share of 0\.\d+, as its probability says, got 0\."),
        (DeafToExposure, "exposure: expected a mean in proportion to it, got the same one"),
        (SquaredExposure, "exposure: expected a mean in proportion to it"),
        (NoEvent, r"batch_shape: expected \(6,\), got \(6, 3\)"),
        (DeafToTheDecoder, "the decoder's outputs get no gradient"),
        (RefusesItself, "check_support: expected to accept the likelihood's own draws, got ValueError.*positive"),
    ],
)
def test_faults_of_a_likelihood(likelihood: type[Likelihood], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_likelihood(likelihood.example())


def test_dtype_of_a_likelihood() -> None:
    testing.check_likelihood(PlainLikelihood(3), dtype=torch.float64)
    testing.check_likelihood(GaussianLikelihood(3).double())
    with pytest.raises(AssertionError, match=r"sample dtype: expected torch\.float64, got torch\.float32"):
        testing.check_likelihood(SinglePrecisionLikelihood(3), dtype=torch.float64)


class OneByOne(Decoder):
    """Only for (N, d)."""

    latent_dim, num_outputs = 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2))

    def forward(self, z: Tensor) -> Tensor:
        return z.reshape(-1, 2) @ self.weight.T

    @classmethod
    def example(cls) -> "OneByOne":
        return cls()


class Mixing(OneByOne):
    """Subtracts the batch's mean: a datum's output depends on the others."""

    def forward(self, z: Tensor) -> Tensor:
        return (z - z.mean(0)) @ self.weight.T


class Idle(OneByOne):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.weight.T


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (OneByOne, r"output shape: expected \(4, 5, 3\), got \(20, 3\)"),
        (Mixing, "rows: expected the same output for a row alone"),
        (Idle, "idle gets no gradient"),
    ],
)
def test_faults_of_a_decoder(decoder: type[Decoder], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_decoder(decoder.example())


class MixingEncoder(LinearEncoder):
    def features(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class NarrowEncoder(LinearEncoder):
    def features(self, x: Tensor) -> Tensor:
        return x[..., :-1]


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (MixingEncoder, "rows: expected the same output for a row alone"),
        (NarrowEncoder, r"output shape: expected \(4, 3\), got \(4, 2\)"),
    ],
)
def test_faults_of_an_encoder(encoder: type[Encoder], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_encoder(encoder(3))


class MixingGuide(DiagonalGuide):
    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return super().distribution(x - x.mean(0))


class CutGuide(DiagonalGuide):
    """No gradient goes through its draws."""

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        q = super().distribution(x).base_dist
        return CutNormal(q.loc, q.scale).to_event(1)


class CutNormal(dist.Normal):
    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return super().rsample(sample_shape).detach()


class LeakyGuide(DiagonalGuide):
    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        q = super().distribution(x).base_dist
        return HalfMass(q.loc, q.scale).to_event(1)


class NoEventGuide(DiagonalGuide):
    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return super().distribution(x).base_dist


class StoringGuide(DiagonalGuide):
    """Keeps a parameter in Pyro's global store."""

    def forward(self, x: Tensor, num_data: int | None = None) -> Tensor:
        pyro.param("stray", torch.ones(1))
        return super().forward(x, num_data)


class OtherSiteGuide(DiagonalGuide):
    def forward(self, x: Tensor, num_data: int | None = None) -> Tensor:
        with pyro.plate("data", x.shape[-2]):
            return pyro.sample("code", self.distribution(x))


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (NoEventGuide, r"batch_shape: expected \(4,\), got \(4, 2\)"),
        (MixingGuide, "rows: expected the same q_x for a row alone"),
        (CutGuide, "loc.weight gets no gradient through a draw"),
        (LeakyGuide, "total mass: expected 1"),
        (StoringGuide, r"parameter store: expected to be left alone, got \['stray'\]"),
        (OtherSiteGuide, r"sites: expected \['z'\], got \['code'\]"),
    ],
)
def test_faults_of_a_guide(guide: type[Guide], message: str) -> None:
    try:
        with pytest.raises(AssertionError, match=message):
            testing.check_guide(guide(LinearEncoder(3), 2))
    finally:
        pyro.clear_param_store()


class SummedObjective(ELBOObjective):
    def __call__(self, *args: object) -> Tensor:
        return super().__call__(*args).sum()


class LossObjective(ELBOObjective):
    """The loss in the place of the objective: the wrong sign."""

    def __call__(self, *args: object) -> Tensor:
        return -super().__call__(*args)


class SummedStep(ELBOObjective):
    def step_loss(self, model: nn.Module, guide: nn.Module, x: Tensor, kl_weight: float = 1.0) -> StepLoss:
        step = super().step_loss(model, guide, x)
        return step._replace(loss=step.loss * len(x))


class ModelOnly(ELBOObjective):
    def __call__(self, model: nn.Module, guide: nn.Module, x: Tensor, kl_weight: float = 1.0) -> Tensor:
        z = guide(x).detach()
        return model.likelihood(model.decoder(z)).log_prob(x)

    def step_loss(self, model: nn.Module, guide: nn.Module, x: Tensor, kl_weight: float = 1.0) -> StepLoss:
        return StepLoss(-self(model, guide, x).mean(), torch.zeros(()), torch.zeros(()))


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (SummedObjective, r"shape: expected \(6,\), got \(\)"),
        (LossObjective, "step_loss: expected minus the objective's mean"),
        (SummedStep, "step_loss: expected minus the objective's mean"),
        (ModelOnly, "guide.* gets no gradient"),
    ],
)
def test_faults_of_an_objective(objective: type[ELBOObjective], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_objective(objective())


def test_a_pair_that_fits_and_one_that_does_not() -> None:
    vae = VAE.example()
    testing.check_pair(vae.model, vae.guide)
    with pytest.raises(
        AssertionError, match=r"the guide's sites: expected \{'z': \(5, 2\)\}, got \{'code': \(5, 2\)\}"
    ):
        testing.check_pair(vae.model, OtherSiteGuide(LinearEncoder(3), 2))


@pytest.mark.parametrize("name", sorted(Objective.registry))
@pytest.mark.parametrize("num_particles", [1, 4])
def test_every_objective_in_float64(name: str, num_particles: int) -> None:
    testing.check_objective(Objective.registry[name](num_particles=num_particles), VAE.example().double())
