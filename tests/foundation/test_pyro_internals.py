"""Each private name of Pyro does what the package takes it to do: a release that changes it fails here, by name."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine import Trace, runtime
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor

from probvae.foundation.pyro_internals import (
    _LOSSES,
    _READERS,
    LatentScale,
    SeeingTraceELBO,
    SeeingTraceMeanFieldELBO,
    losses_read_no_numbers,
    plates_of_its_own,
)


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5 * x, 1.0))


def test_modules_of_pyros_losses_and_their_readers_of_numbers() -> None:
    modules = [getattr(pyro.infer, name) for name in _LOSSES]
    assert all(any(hasattr(module, name) for name in _READERS) for module in modules)
    before = [vars(module).get(name) for module in modules for name in _READERS]
    with losses_read_no_numbers():
        changed = [vars(module).get(name) for module in modules for name in _READERS]
    assert [vars(module).get(name) for module in modules for name in _READERS] == before
    assert all(one is not two for one, two in zip(before, changed, strict=True) if one is not None)


@pytest.mark.parametrize(
    ("loss_class", "base"), [(SeeingTraceELBO, Trace_ELBO), (SeeingTraceMeanFieldELBO, TraceMeanField_ELBO)]
)
def test_losses_make_their_traces_in_the_method_that_is_overridden(loss_class: type, base: type) -> None:
    assert hasattr(base, "_get_trace")
    seen: list[tuple[Trace, Trace]] = []

    class Seeing(loss_class):  # type: ignore[misc]
        """Keeps the traces."""

        def see(self, model_trace: Trace, guide_trace: Trace) -> None:
            seen.append((model_trace, guide_trace))

    x = torch.randn(3)
    torch.manual_seed(0)
    found = Seeing().differentiable_loss(model, guide, x)
    torch.manual_seed(0)
    assert torch.equal(found, base().differentiable_loss(model, guide, x))
    [(model_trace, guide_trace)] = seen
    assert "log_prob_sum" in model_trace.nodes["x"]
    assert "z" in guide_trace.nodes


def test_the_scale_reaches_latent_sites_only() -> None:
    assert hasattr(ScaleMessenger, "_process_message")
    trace = pyro.poutine.trace(LatentScale(0.25)(model)).get_trace(torch.zeros(3))
    assert (trace.nodes["z"]["scale"], trace.nodes["x"]["scale"]) == (0.25, 1.0)


def test_plates_inside_do_not_see_those_outside() -> None:
    assert hasattr(runtime._DIM_ALLOCATOR, "_stack")
    with pyro.plate("data", 2):
        with plates_of_its_own(), pyro.plate("data", 3) as rows:  # the same name, and the same dimension
            assert len(rows) == 3
        assert len(runtime._DIM_ALLOCATOR._stack) == 1
