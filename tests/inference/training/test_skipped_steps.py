"""Steps whose loss or gradient is not finite: nothing moves, they are counted and told, and too many end the fit."""

import math
from collections.abc import Iterator

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.testing import assert_close

import probvae
from probvae.errors import NonFiniteLossError, SkippedStepsWarning
from probvae.foundation.fit_options import FitOptions
from probvae.inference import DiagonalGuide, MLPEncoder, fit
from probvae.inference.objectives import ELBOObjective
from probvae.inference.training.loop import Loop
from probvae.inference.training.training_data import check_and_split
from probvae.models import Decoder, GaussianLikelihood, LatentModel, LinearDecoder, MLPDecoder, StandardNormalPrior

DIM, NUM_DATA, BATCH = 3, 50, 16
HUGE = 1e200  # its square is infinite
PATHS = [False, "graph", pytest.param(True, marks=pytest.mark.slow)]


def make(encoder: nn.Module | None = None) -> probvae.VAE:
    torch.manual_seed(7)
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, DIM, (6,)), GaussianLikelihood(DIM))
    return probvae.VAE(model, DiagonalGuide(encoder or MLPEncoder(DIM, (5,)), 2)).double()


def data_with_an_outlier() -> Tensor:
    x = torch.randn(NUM_DATA, DIM, generator=torch.Generator().manual_seed(1)).double()
    x[17, 1] = HUGE
    return x


def by_hand(vae: probvae.VAE, x: Tensor, epochs: int) -> list[float]:
    """Adam, which does not hear of a minibatch with the outlier; the mean ELBO of the others' data."""
    torch.manual_seed(0)
    optimizer, elbos = torch.optim.Adam(vae.parameters(), lr=1e-2), []
    for _ in range(epochs):
        total, num_data = 0.0, 0
        for rows in (x[index] for index in torch.randperm(len(x)).split(BATCH)):
            loss = Trace_ELBO().differentiable_loss(vae.model, vae.guide, rows)
            if rows.max() < HUGE:
                optimizer.zero_grad()
                (loss / BATCH).backward()
                optimizer.step()
                total, num_data = total + loss.item(), num_data + len(rows)
        elbos.append(-total / num_data)
    return elbos


@pytest.mark.filterwarnings("ignore:Encountered NaN")  # Pyro's, in the loop by hand
@pytest.mark.parametrize("compile", PATHS)
def test_fit_is_that_of_the_minibatches_that_have_a_loss(compile: str | bool) -> None:
    x, ours, hand = data_with_an_outlier(), make(), make()
    with pytest.warns(SkippedStepsWarning, match=r"3 of 12 steps were skipped, the first at site 'z', epoch 1, batch"):
        result = fit(
            ours,
            x,
            epochs=3,
            batch_size=BATCH,
            learning_rate=1e-2,
            schedule="constant",
            compile=compile,
            progress=False,
        )
    assert result.path == {False: "pyro", "graph": "traced", True: "compiled"}[compile]
    assert [record["elbo"] for record in result.history] == pytest.approx(by_hand(hand, x, 3), rel=1e-10)
    assert [record["skipped_steps"] for record in result.history] == [1, 1, 1]
    for one, two in zip(ours.parameters(), hand.parameters(), strict=True):
        assert_close(one, two, rtol=1e-9, atol=1e-10)


class NormalisedEncoder(MLPEncoder, name=None):
    """Batch normalisation keeps running means, which a step moves."""

    def __init__(self) -> None:
        super().__init__(DIM, (5,))
        self.normalise = nn.BatchNorm1d(DIM)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.normalise(x))


def loop_of(vae: probvae.VAE, x: Tensor, compile: str | bool) -> Loop:
    options = FitOptions(epochs=1, batch_size=BATCH, compile=compile)
    loop = Loop(vae, check_and_split(vae, vae, x, options, x.device), ELBOObjective(), options)
    vae.train()
    loop.stepper.choose_step(loop.rows)
    return loop


@pytest.mark.parametrize("compile", PATHS)
@pytest.mark.parametrize("others_before", [False, True])
def test_nothing_moves_in_a_step_that_is_skipped(compile: str | bool, others_before: bool) -> None:
    vae = make(NormalisedEncoder())
    loop = loop_of(vae, torch.randn(NUM_DATA, DIM).double(), compile)
    steps, batch = loop.stepper, next(loop.minibatches())
    if others_before:
        assert steps.take(batch).taken
    before = {**vae.state_dict(), **steps.optimizer.state_dict()}
    before = {name: tensor.clone() for name, tensor in before.items()}
    assert not steps.take(batch._replace(rows=torch.full_like(batch.rows, HUGE))).taken
    after = {**vae.state_dict(), **steps.optimizer.state_dict()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert steps.take(batch).taken
    changed = {name for name, tensor in after.items() if not torch.equal(before[name], tensor)}
    assert {"guide.encoder.normalise.running_mean", "first_moment.0", "step.0"} <= changed


@pytest.fixture
def steep() -> Iterator[probvae.VAE]:
    """f(z) = W z + sqrt(b): finite at b = 0, and its gradient is not."""

    class SteepDecoder(LinearDecoder, name="steep-for-this-test"):
        """A slope without bound."""

        def forward(self, z: Tensor) -> Tensor:
            return z @ self.weight.T + self.bias.sqrt()

    decoder = SteepDecoder(2, DIM)
    nn.init.zeros_(decoder.bias)
    model = LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(DIM))
    yield probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, (5,)), 2)).double()
    del Decoder.registry["steep-for-this-test"]


@pytest.mark.parametrize("compile", PATHS)
@pytest.mark.parametrize(("most", "skipped"), [(0, ""), (2, r" \(3 steps in a row were skipped\)"), (50, r" \(4 .*\)")])
def test_gradient_that_is_not_finite(steep: probvae.VAE, compile: str | bool, most: int, skipped: str) -> None:
    """The loss is finite in every step. With 50 allowed, the epoch of four steps ends before they are used up."""
    before = {name: tensor.clone() for name, tensor in steep.state_dict().items()}
    message = rf"^site 'x', epoch 1, batch 1: the gradient of model.decoder.bias is not finite{skipped}\. The weights"
    options = {"compile": compile, "max_skipped_steps": most, "epochs": 30, "batch_size": BATCH, "progress": False}
    with pytest.raises(NonFiniteLossError, match=message):
        fit(steep, torch.randn(NUM_DATA, DIM).double(), **options)
    assert all(torch.equal(before[name], tensor) for name, tensor in steep.state_dict().items())


def test_a_row_ends_with_a_step_that_is_taken() -> None:
    """One step in four is skipped, forty in all: at an epoch's end and the next one's start two in a row at most."""
    with pytest.warns(SkippedStepsWarning, match="40 of 160 steps were skipped"):
        result = fit(make(), data_with_an_outlier(), epochs=40, batch_size=BATCH, max_skipped_steps=2, progress=False)
    assert all(math.isfinite(record["elbo"]) for record in result.history)
