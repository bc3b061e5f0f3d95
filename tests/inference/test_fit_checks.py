"""What the fit refuses before it begins: each message names the caller's own argument and row, and nothing is left."""

import math

import pytest
import torch

import probvae
from probvae.errors import ArgumentError, DataError, SupportError
from probvae.inference import DiagonalGuide, MLPEncoder, fit
from probvae.models import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    GaussianLikelihood,
    LatentModel,
    Likelihood,
    LinearDecoder,
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
