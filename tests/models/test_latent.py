"""The model's program: what it draws and what it refuses."""

import math

import pytest
import torch
from pyro import poutine
from torch.testing import assert_close

from probvae.errors import ArgumentError, ShapeError
from probvae.inference import DiagonalGuide, LinearEncoder
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, MLPDecoder, StandardNormalPrior


def make() -> LatentModel:
    return LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3, variance=0.3)).double()


def test_number_of_data() -> None:
    model = make()
    assert model().shape == (1, 3)
    assert model(num_data=4).shape == (4, 3)
    assert model(torch.zeros(5, 3).double(), num_data=5).shape == (5, 3)
    for num_data in (0, -1, 2.0):
        with pytest.raises(ArgumentError, match="num_data: expected an integer >= 1"):
            model(num_data=num_data)
    with pytest.raises(ArgumentError, match="num_data: expected the 5 rows of x, got 7"):
        model(torch.zeros(5, 3).double(), num_data=7)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(5, 4), r"x: expected trailing shape \(3,\), got \(5, 4\)"),
        (torch.tensor(1.0), r"x: expected trailing shape \(3,\), got \(\)"),
        (torch.zeros(3), r"x: expected shape \(N, D\), got \(3,\).*x.unsqueeze\(0\)"),
    ],
)
def test_shape_of_data(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make()(x.double())


def test_log_joint_is_written_out() -> None:
    model, x, z = make(), torch.randn(4, 3).double(), torch.randn(4, 2).double()
    trace = poutine.trace(poutine.condition(model, data={"z": z})).get_trace(x)
    trace.compute_log_prob()
    f = z @ model.decoder.weight.T + model.decoder.bias
    log_two_pi = math.log(2 * math.pi)
    assert_close(trace.nodes["z"]["log_prob"], -0.5 * z.square().sum(1) - log_two_pi, rtol=1e-12, atol=1e-12)
    expected = -(x - f).square().sum(1) / 0.6 - 1.5 * math.log(2 * math.pi * 0.3)
    assert_close(trace.nodes["x"]["log_prob"], expected, rtol=1e-12, atol=1e-12)
    assert trace.nodes["data"]["value"].shape == (4,)


def test_parameters_are_told_to_pyro_only_inside_a_handler() -> None:
    model = make()
    trace = poutine.trace(model).get_trace(num_data=2)
    told = {name for name, site in trace.nodes.items() if site["type"] == "param"}
    assert told == {"model.decoder.weight", "model.decoder.bias"}
    model.decoder.bias.requires_grad_(False)  # a frozen parameter is not for training
    trace = poutine.trace(model).get_trace(num_data=2)
    assert {name for name, site in trace.nodes.items() if site["type"] == "param"} == {"model.decoder.weight"}


def test_a_count_of_zero_is_not_a_default() -> None:
    for make_one in (lambda: LinearDecoder(2, 3, num_outputs=0), lambda: MLPDecoder(2, 3, num_outputs=0)):
        with pytest.raises(ArgumentError, match="num_outputs: expected an integer >= 1, got 0"):
            make_one()
    with pytest.raises(ArgumentError, match="num_features: expected an integer >= 1, got 0"):
        DiagonalGuide(LinearEncoder(3), 2, num_features=0)
