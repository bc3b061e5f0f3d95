"""Fits that run away: the error names site, epoch and batch, and the last good weights are there, on disk too."""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import probvae
from probvae.errors import NonFiniteLossError
from probvae.inference import DiagonalGuide, LinearEncoder, LowRankGuide, MLPEncoder, fit
from probvae.models import (
    BernoulliLikelihood,
    Decoder,
    GaussianLikelihood,
    LatentModel,
    LinearDecoder,
    StandardNormalPrior,
)

DIM = 4
MESSAGE = re.compile(
    r"^site '(z|x)', epoch (\d+), batch (\d+): (.+)\. "
    r"The weights are (as before the fit|those after epoch (\d+))\. Lower learning_rate \(now (.+)\), set gradient_clip"
)


def make(variance: float | str = "learned") -> probvae.VAE:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, DIM), GaussianLikelihood(DIM, variance=variance))
    return probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, hidden=(8,)), 2))


def state(vae: probvae.VAE) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in vae.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def failed(vae: probvae.VAE, x: torch.Tensor, **options: object) -> re.Match[str]:
    with pytest.raises(NonFiniteLossError) as caught:
        fit(vae, x, progress=False, **options)
    match = MESSAGE.match(str(caught.value))
    assert match, str(caught.value)
    return match


@pytest.mark.parametrize("learning_rate", [1e6, 1e12, 1e18, 1e30])
@pytest.mark.parametrize("num_batches", [1, 2])
@pytest.mark.parametrize("validation", [None, 0.2])
def test_absurd_learning_rate(learning_rate: float, num_batches: int, validation: float | None, tmp_path: Path) -> None:
    """With one batch an epoch, the step that breaks the weights is an epoch's last, and no loss of a step shows it."""
    vae, x = make(), torch.randn(100, DIM)
    before = state(vae)
    num_train = 80 if validation else 100
    options = {"batch_size": num_train // num_batches, "validation": validation, "epochs": 20}
    match = failed(vae, x, learning_rate=learning_rate, out=tmp_path / "run", **options)
    epoch, batch = int(match[2]), int(match[3])
    assert 1 <= batch <= num_batches
    assert float(match[7]) == learning_rate
    if match[6] is None:
        assert epoch == 1
        assert same(state(vae), before)
    else:
        assert int(match[6]) == epoch - 1
    assert probvae.elbo(vae, x).isfinite().all()
    assert same(state(probvae.load(tmp_path / "run")), state(vae))
    # every epoch that is on record ended with weights that work
    metrics = tmp_path / "run" / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, epoch))
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == min(2, epoch - 1)


@pytest.fixture
def make_rooted() -> Iterator[Callable[[], probvae.VAE]]:
    """f(z) = W z + sqrt(b): a decoder of a user's, whose numbers end where a falling b passes zero."""

    class RootDecoder(LinearDecoder, name="root-for-this-test"):
        """Not a number for a negative b."""

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z @ self.weight.T + self.bias.sqrt()

    def make_one() -> probvae.VAE:
        decoder = RootDecoder(2, DIM)
        torch.nn.init.constant_(decoder.bias, 0.5)
        model = LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(DIM, variance=1.0))
        return probvae.VAE(model, DiagonalGuide(LinearEncoder(DIM), 2))

    yield make_one
    del Decoder.registry["root-for-this-test"]


@pytest.mark.parametrize("batch_size", [60, 20])
def test_failure_after_good_epochs_keeps_the_last_of_them(
    make_rooted: Callable[[], probvae.VAE], batch_size: int, tmp_path: Path
) -> None:
    vae, x = make_rooted(), torch.randn(60, DIM) - 2
    match = failed(vae, x, learning_rate=0.03, batch_size=batch_size, epochs=300, out=tmp_path / "run")
    assert match[1] == "x"
    assert int(match[6]) == int(match[2]) - 1 > 3
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    assert newest.name == f"epoch-{int(match[6]):06d}.safetensors"
    assert same(state(probvae.load(newest)), state(vae))
    assert same(state(probvae.load(tmp_path / "run")), state(vae))
    assert probvae.elbo(vae, x).isfinite().all()


def test_failure_with_patience_names_the_epoch_whose_weights_are_kept(
    make_rooted: Callable[[], probvae.VAE], tmp_path: Path
) -> None:
    vae, x = make_rooted(), torch.randn(60, DIM) - 2
    held_out = torch.randn(30, DIM) + 1  # elsewhere: the best epoch comes early
    options = {"validation": held_out, "patience": 300, "epochs": 300, "batch_size": 60, "learning_rate": 0.03}
    match = failed(vae, x, out=tmp_path / "run", **options)
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    bounds = [record["validation_elbo"] for record in history]
    assert int(match[6]) == bounds.index(max(bounds)) + 1 < int(match[2]) - 1
    assert same(state(probvae.load(tmp_path / "run")), state(vae))


def test_site_is_the_decoders_where_only_the_decoder_is_broken() -> None:
    vae, x = make(variance=0.5), torch.randn(50, DIM)
    with torch.no_grad():
        vae.model.decoder.bias[1] = math.nan
    before = {name: tensor for name, tensor in state(vae).items() if name != "model.decoder.bias"}
    match = failed(vae, x, batch_size=25, epochs=1)
    assert (match[1], match[2], match[3], match[5]) == ("x", "1", "1", "as before the fit")
    assert "Expected parameter loc" in match[4]
    assert same({name: tensor for name, tensor in state(vae).items() if name != "model.decoder.bias"}, before)


def test_site_is_the_guides_where_the_guide_is_broken() -> None:
    vae = make(variance=0.5)
    with torch.no_grad():
        vae.guide.loc.bias[0] = math.nan
    assert failed(vae, torch.randn(50, DIM), batch_size=25, epochs=1)[1] == "z"


def test_validation_data_that_overflow() -> None:
    """Finite data, finite weights, and a squared error beyond float32."""
    vae, x = make(), torch.randn(50, DIM)
    match = failed(vae, x, batch_size=25, epochs=3, validation=torch.full((10, DIM), 1e25) * torch.rand(10, 1))
    assert match[4].startswith("after this step validation_elbo is") or match[4].startswith("after this step the loss")
    assert match[5] == "as before the fit"


def test_bernoulli_fit_names_the_batch() -> None:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, DIM), BernoulliLikelihood(DIM))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, hidden=(8,)), 2))
    match = failed(vae, torch.rand(60, DIM).round(), learning_rate=1e30, batch_size=20, epochs=2)
    assert int(match[3]) in (1, 2, 3)


def test_clipping_and_a_small_step_do_not_fail() -> None:
    vae = make()
    result = fit(vae, torch.randn(100, DIM), epochs=3, batch_size=25, gradient_clip=1.0, progress=False)
    assert all(math.isfinite(record["elbo"]) for record in result.history)


@pytest.mark.parametrize("compile", [False, "graph"])
def test_covariance_that_has_no_factor_is_a_step_to_skip(compile: bool | str) -> None:
    """A low-rank covariance with infinite entries: torch's factorisation raises an error of its own."""
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, DIM), GaussianLikelihood(DIM))
    vae = probvae.VAE(model, LowRankGuide(MLPEncoder(DIM, hidden=(8,)), 2))
    match = failed(vae, torch.randn(100, DIM), epochs=2, batch_size=25, learning_rate=1e30, compile=compile)
    assert "positive-definite" in match[4]
