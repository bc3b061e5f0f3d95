"""What the fit refuses before it begins: each message names the caller's own argument and row, and nothing is left."""

import math
from pathlib import Path

import pytest
import torch

import probvae
from probvae.errors import ArgumentError, DataError, ShapeError, SupportError
from probvae.inference import DiagonalGuide, LinearEncoder, MLPEncoder, fit
from probvae.models import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    GaussianLikelihood,
    LatentModel,
    Likelihood,
    LinearDecoder,
    MixturePrior,
    Prior,
    StandardNormalPrior,
)

DIM = 4


def make(likelihood: Likelihood | None = None) -> probvae.VAE:
    likelihood = likelihood or GaussianLikelihood(DIM)
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, DIM), likelihood)
    return probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, hidden=(6,)), 2))


def quiet(vae: probvae.VAE, x: torch.Tensor, **options: object) -> probvae.FitResult:
    return fit(vae, x, **{"epochs": 2, "batch_size": 20, "progress": False, **options})


def grey(value: float | None = None, num: int = 60) -> torch.Tensor:
    x = torch.rand(num, DIM)
    if value is not None:
        x[17, 2] = value
    return x


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("validation", [None, 0.3, "data"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_row_is_the_callers(value: float, validation: float | str | None, fresh: bool) -> None:
    """Rows are counted before the validation data are taken out and shuffled."""
    vae = make(BernoulliLikelihood(DIM) if fresh else None)
    options = {"validation": grey() if validation == "data" else validation}
    options |= {"binarization": "fresh"} if fresh else {}
    with pytest.raises(DataError, match=r"^x: 1 of 60 rows contain NaN or infinity \(first: row 17\)"):
        quiet(vae, grey(value), **options)


@pytest.mark.parametrize("fresh", [False, True])
def test_bad_validation_data_are_called_so(fresh: bool) -> None:
    vae = make(BernoulliLikelihood(DIM) if fresh else None)
    options = {"binarization": "fresh"} if fresh else {}
    with pytest.raises(DataError, match=r"^validation: 1 of 30 rows contain NaN or infinity \(first: row 17\)"):
        quiet(vae, grey(), validation=grey(math.nan, num=30), **options)


def test_validation_data_outside_the_support() -> None:
    with pytest.raises(SupportError, match=r"^validation: expected values in \[0, 1\], got 0\.\d+ to 2"):
        quiet(make(ContinuousBernoulliLikelihood(DIM)), grey(), validation=grey(2.0))
    with pytest.raises(DataError, match=r"^validation: binarization='fresh' needs values in \[0, 1\]"):
        quiet(make(BernoulliLikelihood(DIM)), grey(), validation=grey(2.0), binarization="fresh")
    with pytest.raises(SupportError, match=r"^validation: a Bernoulli likelihood needs values 0 and 1"):
        quiet(make(BernoulliLikelihood(DIM)), grey().round(), validation=grey())


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (0.999, r"validation: a share of 0\.999 leaves none of the 60 rows"),
        (math.nan, "validation: expected a share between 0 and 1"),
        ("a tenth", r"validation: expected a share between 0 and 1, or data \(M, D\), got 'a tenth'"),
        (torch.rand(5, DIM + 1), "validation: expected 4 columns, got 5"),
        (torch.zeros(5, DIM).long(), "validation: expected a floating-point dtype"),
    ],
)
def test_bad_validation(validation: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{message}"):
        quiet(make(), grey(), validation=validation)


def test_float64_data_that_overflow_float32() -> None:
    x = torch.rand(60, DIM, dtype=torch.float64)
    x[17] = 1e300
    with pytest.raises(DataError, match=r"^x: 1 of 60 rows contain NaN or infinity \(first: row 17\)"):
        quiet(make(), x)
    quiet(make(), x.clamp(max=2.0))  # float64 data and float32 weights are welcome


def with_prior(prior: Prior) -> probvae.VAE:
    model = LatentModel(prior, LinearDecoder(2, DIM), GaussianLikelihood(DIM))
    return probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, hidden=(6,)), 2))


def with_decoder(decoder: torch.nn.Module) -> probvae.VAE:
    model = LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(DIM))
    return probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, hidden=(6,)), 2))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: with_decoder(torch.nn.Linear(2, DIM)), {}, "Linear: cannot be saved by name"),
        # a KL from a normal guide has no closed form: found before anything is written
        (lambda: with_prior(MixturePrior(2, 3)), {"objective": "analytic-kl"}, r"no.* from .*objective='elbo'"),
        (make, {"objective": "elbo2"}, "unknown objective 'elbo2'. Did you mean 'elbo'"),
        (make, {"patience": 2}, "patience: expected validation data"),
        (make, {"device": "warp"}, "device: 'warp' is not available"),
    ],
)
def test_refusal_leaves_no_folder_and_no_change(make, options: dict, message: str, tmp_path: Path) -> None:
    vae, x = make(), grey()
    state = torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    with pytest.raises(ArgumentError, match=message):
        quiet(vae, x, out=tmp_path / "run", **options)
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_unregistered_parts_can_be_fitted_without_a_folder() -> None:
    assert len(quiet(with_decoder(torch.nn.Linear(2, DIM)), grey()).history) == 2


def test_encoder_must_have_the_models_width() -> None:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, DIM), GaussianLikelihood(DIM))
    for encoder in (MLPEncoder(DIM + 1), LinearEncoder(DIM + 1)):
        with pytest.raises(ShapeError, match=r"guide: expected an encoder with data_dim=4 \(the model's\), got 5"):
            probvae.VAE(model, DiagonalGuide(encoder, 2))
    probvae.VAE(model, DiagonalGuide(torch.nn.Linear(DIM, 6), 2, num_features=6))  # one that does not say
