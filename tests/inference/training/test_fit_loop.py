"""The fit against the same loop written out by hand, and what it shows while it runs."""

import math
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.testing import assert_close

import probvae
from probvae.inference import DiagonalGuide, FullCovarianceGuide, MLPEncoder, fit, optimal_variance
from probvae.models import (
    BernoulliLikelihood,
    GaussianLikelihood,
    LatentModel,
    Likelihood,
    MLPDecoder,
    StandardNormalPrior,
)

DIM = 4
EXACT = {"rtol": 1e-12, "atol": 1e-12}
LOSSES: dict[str, type[pyro.infer.ELBO]] = {"elbo": Trace_ELBO, "analytic-kl": TraceMeanField_ELBO}


def make(likelihood: Likelihood | None = None, full: bool = False) -> probvae.VAE:
    torch.manual_seed(11)
    likelihood = likelihood or GaussianLikelihood(DIM, variance="learned")
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, likelihood.num_outputs, hidden=(6,)), likelihood)
    family = FullCovarianceGuide if full else DiagonalGuide
    return probvae.VAE(model, family(MLPEncoder(DIM, hidden=(6,)), 2)).double()


def by_hand(
    vae: probvae.VAE,
    x: torch.Tensor,
    *,
    objective: str = "elbo",
    epochs: int = 3,
    batch_size: int = 16,
    learning_rate: float = 1e-2,
    schedule: str = "constant",
    gradient_clip: float | None = None,
    binarization: str = "none",
    seed: int = 0,
) -> list[float]:
    """Adam on the negative ELBO summed over each minibatch, over batch_size; the mean ELBO of each epoch."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(vae.parameters(), lr=learning_rate)
    steps, step, elbos = epochs * math.ceil(len(x) / batch_size), 0, []
    for _ in range(epochs):
        order, total = torch.randperm(len(x)), 0.0
        for start in range(0, len(x), batch_size):
            rows = x[order[start : start + batch_size]]
            rows = (torch.rand_like(rows) < rows).double() if binarization == "fresh" else rows
            if schedule == "cosine":
                optimizer.param_groups[0]["lr"] = learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.zero_grad()
            loss = LOSSES[objective]().differentiable_loss(vae.model, vae.guide, rows) / len(rows)
            (loss * len(rows) / batch_size).backward()
            if gradient_clip is not None:
                gradients = [parameter.grad for parameter in vae.parameters()]
                norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
                for gradient in gradients:
                    gradient.mul_(min(1.0, gradient_clip / (norm.item() + 1e-6)))
            optimizer.step()
            total += len(rows) * loss.item()
            step += 1
        elbos.append(-total / len(x))
    return elbos


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seed": 5, "batch_size": 50},
        {"objective": "analytic-kl", "schedule": "cosine"},
        {"gradient_clip": 0.3, "learning_rate": 0.1},
        {"batch_size": 1, "epochs": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("full", [False, True])
def test_fit_is_the_loop_written_out(options: dict, full: bool) -> None:
    x = torch.randn(50, DIM, dtype=torch.float64) * 2 + 1  # 50 = 3 * 16 + 2: the last minibatch is short
    ours, hand = make(full=full), make(full=full)
    result = fit(
        ours,
        x,
        **{"epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "schedule": "constant", "progress": False, **options},
    )
    expected = by_hand(hand, x, **options)
    assert [record["elbo"] for record in result.history] == pytest.approx(expected, rel=1e-11)
    for one, two in zip(ours.parameters(), hand.parameters(), strict=True):
        assert_close(one, two, rtol=1e-10, atol=1e-11)


def test_a_fit_is_pyros_own_svi_on_the_sum_over_each_minibatch() -> None:
    """Two epochs of three whole minibatches and one of two data, the sum of each scaled by the same number."""
    x, ours, pyros = torch.randn(50, DIM, dtype=torch.float64), make(), make()
    fit(ours, x, epochs=2, batch_size=16, learning_rate=1e-2, schedule="constant", progress=False)

    def stored(name: str, program: torch.nn.Module) -> Callable[[torch.Tensor], object]:
        return pyro.poutine.scale(lambda rows: pyro.module(name, program)(rows), scale=1 / 16)

    programs = stored("model", pyros.model), stored("guide", pyros.guide)
    svi = pyro.infer.SVI(*programs, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    torch.manual_seed(0)
    for _ in range(2):
        for rows in torch.randperm(len(x)).split(16):
            svi.step(x[rows])
    pyro.clear_param_store()
    for one, two in zip(ours.parameters(), pyros.parameters(), strict=True):
        assert_close(one, two, rtol=1e-10, atol=1e-10)


def test_clipping_changes_the_path() -> None:
    """Adam divides by the gradient's own size; where sizes differ from step to step, the clip shows."""
    x, free, clipped = torch.randn(50, DIM, dtype=torch.float64) * 9, make(), make()
    by_hand(free, x, epochs=3)
    by_hand(clipped, x, epochs=3, gradient_clip=0.3)
    assert (free.guide.loc.weight - clipped.guide.loc.weight).abs().max() > 1e-3


def test_fresh_binarisation_is_the_loop_written_out() -> None:
    x = torch.rand(50, DIM, dtype=torch.float64)
    ours, hand = make(BernoulliLikelihood(DIM)), make(BernoulliLikelihood(DIM))
    fit(ours, x, epochs=3, batch_size=16, learning_rate=1e-2, schedule="constant", binarization="fresh", progress=False)
    by_hand(hand, x, binarization="fresh")
    for one, two in zip(ours.parameters(), hand.parameters(), strict=True):
        assert_close(one, two, rtol=1e-10, atol=1e-11)


def test_validation_and_folder_do_not_change_the_first_epoch(tmp_path) -> None:
    """What is looked at and written draws no number that the first epoch's training would have had."""
    x, plain, watched = torch.randn(48, DIM, dtype=torch.float64), make(), make()
    fit(plain, x, epochs=1, batch_size=16, progress=False)
    fit(watched, x, epochs=1, batch_size=16, progress=False, validation=x[:9] + 1, out=tmp_path / "run")
    assert all(torch.equal(one, two) for one, two in zip(plain.parameters(), watched.parameters(), strict=True))


def test_kl_and_variance_of_the_history() -> None:
    x, vae = torch.randn(64, DIM, dtype=torch.float64), make(GaussianLikelihood(DIM, "per-dimension"))
    record = fit(vae, x, epochs=1, batch_size=64, learning_rate=1e-12, objective="analytic-kl", progress=False).history
    q = vae.guide.distribution(x)
    kl = 0.5 * (q.variance + q.mean.square() - 1 - q.variance.log()).sum(1).mean()
    assert record[0]["kl"] == pytest.approx(kl.item(), abs=1e-8)
    c = 1e-6 + vae.model.likelihood.log_variance.exp()
    assert record[0]["variance"] == pytest.approx(c.mean().item(), rel=1e-12)
    binary = fit(make(BernoulliLikelihood(DIM)), x.sigmoid().round(), epochs=1, batch_size=64, progress=False)
    assert binary.history[0]["variance"] is None


def test_optimal_variance_is_set_after_every_epoch() -> None:
    torch.manual_seed(3)
    x = torch.randn(50, DIM, dtype=torch.float64)
    one = fit(a := make(GaussianLikelihood(DIM, "optimal")), x, epochs=2, batch_size=25, progress=False)
    assert one.history[0]["variance"] != one.history[1]["variance"]
    # the network decoder's expectation is one draw a datum: within its own spread of another draw
    again = [optimal_variance(a, x) for _ in range(50)]
    spread = torch.tensor(again).std().item()
    assert abs(one.history[1]["variance"] - sum(again) / 50) < 5 * spread


@pytest.mark.parametrize("epochs", [3, 40])
def test_progress_in_a_log_is_a_few_lines_on_stderr(epochs: int, capfd: pytest.CaptureFixture[str]) -> None:
    fit(make(), torch.randn(40, DIM), epochs=epochs, batch_size=40)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert 3 <= len(lines) <= 12
    assert lines[0].startswith(f"epoch 1/{epochs}  ELBO -")
    assert lines[-1].startswith(f"epoch {epochs}/{epochs}  ELBO -")
    assert "KL" in lines[0]


def test_no_progress_is_silence(capfd: pytest.CaptureFixture[str]) -> None:
    fit(make(), torch.randn(40, DIM), epochs=2, batch_size=40, progress=False)
    assert capfd.readouterr() == ("", "")
