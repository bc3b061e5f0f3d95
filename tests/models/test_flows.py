"""The flows that guides and priors are made of."""

import copy

import pytest
import torch
from torch.testing import assert_close

from probvae.errors import ArgumentError
from probvae.models.flows import flow_transform


def randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))


def contexts(context: int) -> torch.Tensor | None:
    return torch.randn(7, context) if context else None


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("features", [1, 2, 3, 6])
def test_begins_as_the_identity(features: int, context: int, double: None) -> None:
    x = 3 * torch.randn(4, 7, features)
    transform = flow_transform(features, context, num_transforms=4)(contexts(context))
    assert_close(transform(x), x)
    assert_close(transform.log_abs_det_jacobian(x, x), torch.zeros(4, 7))


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("features", [1, 2, 5])
def test_inverse_and_determinant_of_the_jacobian(features: int, context: int, double: None) -> None:
    flow = flow_transform(features, context, num_transforms=3, hidden=(8,), num_bins=5)
    randomise(flow)
    transform = flow(contexts(context))
    x = 2 * torch.randn(7, features)
    y = transform(x)
    assert_close(transform.inv(y), x, rtol=1e-8, atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda x: transform(x).sum(0), x).movedim(1, 0)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    assert_close(transform.log_abs_det_jacobian(x, y), expected, rtol=1e-10, atol=1e-10)


def test_every_dimension_depends_on_every_other(double: None) -> None:
    flow = flow_transform(6, num_transforms=4)
    randomise(flow)
    jacobian = torch.autograd.functional.jacobian(flow(None), torch.randn(6))
    assert (jacobian != 0).all()


def test_copies_are_the_same_map() -> None:
    flow = flow_transform(3, context=2)
    randomise(flow)
    other = flow_transform(3, context=2)
    other.load_state_dict(flow.state_dict())
    x, c = torch.randn(5, 3), torch.randn(5, 2)
    assert torch.equal(flow(c)(x), other(c)(x))
    assert torch.equal(flow(c)(x), copy.deepcopy(flow)(c)(x))


def test_counts_are_checked() -> None:
    for name, options in {"num_transforms": {"num_transforms": 0}, "hidden": {"hidden": (0, 8)}}.items():
        with pytest.raises(ArgumentError, match=f"{name}: expected an integer >= 1, got 0"):
            flow_transform(2, **options)
