"""log q in float32 against the same guide in float64, where scales, dependence and distances are extreme."""

from copy import deepcopy

import pytest
import torch

from probvae.inference import Guide, LocalGuide
from probvae.inference.guides.base import AmortizedGuide

# Families whose density has one formula; a flow's is as exact as its network.
FAMILIES = sorted(name for name, kind in Guide.registry.items() if issubclass(kind, AmortizedGuide) and name != "flow")


@pytest.mark.parametrize("size", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_log_q_is_that_of_float64(name: str, size: float) -> None:
    """Raw heads of +-``size``: scales from exp(-10) to exp(10), columns of L that are nearly equal."""
    guide = Guide.registry[name].example()
    assert isinstance(guide, LocalGuide)
    parameters = size * torch.randn(200, guide.local_parameters(torch.zeros(1, 3)).shape[-1])
    single, exact = guide.member(parameters), deepcopy(guide).double().member(parameters.double())
    z = single.sample((5,))
    found, expected = single.log_prob(z).double(), exact.log_prob(z.double())
    size_of_terms = expected.abs().clamp(min=1)
    # The scale is exp(10 tanh(raw / 10)): one rounding of the exponent is ten of the scale.
    assert ((found - expected).abs() <= 256 * torch.finfo(torch.float32).eps * size_of_terms).float().mean() > 0.99
