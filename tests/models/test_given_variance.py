"""A c that is given is that number in every dtype; and the floor of one that is learned."""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, StandardNormalPrior

EXACT = {"rtol": 1e-12, "atol": 1e-12}
F64 = {"dtype": torch.float64}


@pytest.mark.parametrize(
    "convert", [lambda m: m.double(), lambda m: m.to(torch.float64), copy.deepcopy], ids=["double", "to", "deepcopy"]
)
def test_given_variance_in_float64(convert) -> None:
    """Made in float32, where 0.1 is 0.100000001: converted, it is 0.1 again, alone and inside a model."""
    likelihood = convert(GaussianLikelihood(3, variance=0.1)).double()
    model = convert(LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3, 0.1))).double()
    f, x = torch.randn(5, 3, **F64), torch.randn(5, 3, **F64)
    expected = -0.5 * (x - f).square().sum(1) / 0.1 - 1.5 * math.log(2 * math.pi * 0.1)
    assert_close(likelihood(f).log_prob(x), expected, **EXACT)
    assert_close(model.likelihood(f).log_prob(x), expected, **EXACT)


def test_initial_variance_in_float64() -> None:
    f, x = torch.randn(5, 4, **F64), torch.randn(5, 3, **F64)
    likelihood = GaussianLikelihood(3, variance="per-datum", initial_variance=0.7, minimum_variance=0.003).double()
    c = 0.003 + 0.7 * f[:, 3:].exp()
    expected = (-0.5 * (x - f[:, :3]) ** 2 / c - 0.5 * (2 * math.pi * c).log()).sum(1)
    assert_close(likelihood(f).log_prob(x), expected, **EXACT)


def test_variance_that_was_set_survives_conversion() -> None:
    likelihood = GaussianLikelihood(3, variance="optimal", initial_variance=0.7).double()
    likelihood.set_variance(0.1)
    assert likelihood.double().variance(torch.zeros(1, 3)).item() == 0.1
    assert likelihood.float().double().fixed_variance.item() == pytest.approx(0.1, rel=1e-7)
    other = GaussianLikelihood(3, variance=0.5).double()
    other.load_state_dict({"fixed_variance": torch.tensor(0.2, **F64)})
    assert copy.deepcopy(other).double().fixed_variance.item() == 0.2


@pytest.mark.parametrize("mode", ["learned", "per-dimension", "per-datum", "optimal"])
def test_no_decoder_output_and_no_parameter_passes_the_floor(mode: str) -> None:
    likelihood = GaussianLikelihood(3, variance=mode, minimum_variance=0.02)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.fill_(-200.0)
    if mode == "optimal":
        likelihood.set_variance(0.0)
    outputs = torch.full((5, likelihood.num_outputs), -200.0)
    c = likelihood.variance(outputs)
    assert_close(c, torch.full_like(c, 0.02))
    assert likelihood.num_at_floor(outputs) == {"learned": 1, "per-dimension": 3, "per-datum": 5, "optimal": 1}[mode]


def test_a_fixed_variance_has_no_floor() -> None:
    likelihood = GaussianLikelihood(3, variance=1e-9)
    assert likelihood.variance(torch.zeros(1, 3)).item() == pytest.approx(1e-9)
    assert likelihood.num_at_floor(torch.zeros(1, 3)) == 0


def test_floor_of_per_datum_counts_data() -> None:
    likelihood = GaussianLikelihood(2, variance="per-datum", minimum_variance=0.02)
    outputs = torch.zeros(6, 3)
    outputs[[1, 4], 2] = -30.0
    assert likelihood.num_at_floor(outputs) == 2
