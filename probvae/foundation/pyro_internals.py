"""Every private name of Pyro that the package uses, in one file, so that a release that changes one shows here.

``tests/foundation/test_pyro_internals.py`` has a test for each of them that says which one has changed. Other files
import from here and touch no private name of Pyro.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine import Trace, runtime
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor

# Modules of Pyro's losses, and the functions in them that read a number
_LOSSES = ("trace_elbo", "trace_mean_field_elbo", "renyi_elbo", "tracegraph_elbo", "traceenum_elbo")
_READERS = ("torch_item", "warn_if_nan")


@contextmanager
def losses_read_no_numbers() -> Iterator[None]:
    """Inside the block Pyro's losses look at no number: no NaN check, no validation, no ``.item()``.

    A loss can be traced only so. Where a release of Pyro has other names, the tracer finds that a number is read, and
    the fit goes through Pyro's handlers.
    """
    instead = {"torch_item": _detached, "warn_if_nan": _as_it_is}
    with ExitStack() as stack:
        stack.enter_context(pyro.validation_enabled(False))
        for module in filter(None, (getattr(pyro.infer, name, None) for name in _LOSSES)):
            for name in filter(lambda name: hasattr(module, name), _READERS):
                stack.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, instead[name])
        yield


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _as_it_is(value: Any, *args: Any, **kwargs: Any) -> Any:
    return value


@contextmanager
def plates_of_its_own() -> Iterator[None]:
    """Plates inside the block are placed and named as if there were none outside: a program runs as part of a site.

    Where a release of Pyro keeps its plates elsewhere, plates outside are seen, as in any nested program.
    """
    allocator: Any = getattr(runtime, "_DIM_ALLOCATOR", None)
    if not hasattr(allocator, "_stack"):
        yield
        return
    outside, allocator._stack = allocator._stack, []
    try:
        yield
    finally:
        allocator._stack = outside


class _SeesTraces:
    """A loss of Pyro's that hands the traces of model and guide to :meth:`see` whenever it has made them."""

    def see(self, model_trace: Trace, guide_trace: Trace) -> None:
        """Note what is needed of the traces, whose log densities are computed already."""
        raise NotImplementedError

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        traces: tuple[Trace, Trace] = super()._get_trace(model, guide, args, kwargs)  # type: ignore[misc]
        self.see(*traces)
        return traces


class SeeingTraceELBO(_SeesTraces, Trace_ELBO):
    """``Trace_ELBO`` that shows its traces."""


class SeeingTraceMeanFieldELBO(_SeesTraces, TraceMeanField_ELBO):
    """``TraceMeanField_ELBO`` that shows its traces."""


class LatentScale(ScaleMessenger):
    """Scales the log densities of the latent sites, in the model and in the guide: that weights the KL."""

    def _process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not msg["is_observed"]:
            super()._process_message(msg)
