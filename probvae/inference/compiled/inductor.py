"""A traced computation, compiled by torch's inductor; its compiler is imported here and nowhere else."""

import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from probvae.errors import TraceError
from probvae.foundation.torch_internals import inductor_compile
from probvae.inference.compiled.compiler import ended_by_signals, own_cache
from probvae.inference.compiled.recording import Trace, tensor_of

# Held tensors stay as they are and inputs are brought into form: they need no check at every step. Not every version
# of torch knows every one of these.
_OPTIONS = {"fallback_random": True, "compile_threads": 1, "size_asserts": False, "alignment_asserts": False}
# The compiler cannot be had, has another interface, cannot lower an operator, or cannot write its files; torch wraps
# most of the rest into a RuntimeError
_FAILURES = (ImportError, AttributeError, TypeError, RuntimeError, AssertionError, OSError)


def compiled(trace: Trace, kept: Callable[[], AbstractContextManager[None]]) -> Callable[..., Sequence[Tensor]]:
    """The computation as compiled code: a function of the inputs, which finds the bound tensors by itself.

    Inputs and outputs have the shapes of the run that was written down.
    ``kept`` makes a block that puts back what a run changes: the code is run once here.
    Random numbers are drawn by torch's own operators, in the same order as without the compiler.
    Raises :class:`~probvae.errors.TraceError` where the compiler fails.
    """
    inputs = [tensor_of(node).detach() for node in trace.inputs]
    module, bound = trace.module()
    with warnings.catch_warnings(), torch.no_grad(), ended_by_signals():
        warnings.simplefilter("ignore")  # torch's own, of its own old parts
        try:
            options = {**_OPTIONS, "cpp_wrapper": inputs[0].device.type == "cpu"}
            with own_cache(), kept():
                run: Any = inductor_compile(module, [*bound, *inputs], options)
                run(*bound, *inputs)  # the compiler may put its work off to the first call
        except _FAILURES as error:
            raise TraceError(f"inductor: {type(error).__name__}: {error}".split("\n")[0]) from error
    forms = [_form(tensor) for tensor in inputs]

    def call(*batch: Tensor) -> Sequence[Tensor]:
        return run(*bound, *map(_in_form, batch, forms))

    return call


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.stride(), tensor.dtype, tensor.device


def _in_form(tensor: Tensor, form: tuple[Any, ...]) -> Tensor:
    """The tensor, laid out as the compiled code takes it to be without looking."""
    if _form(tensor) == form:
        return tensor
    stride, dtype, device = form
    return torch.empty_strided(tensor.shape, stride, dtype=dtype, device=device).copy_(tensor)


def check_compiler(device: torch.device) -> None:
    """Raise :class:`~probvae.errors.TraceError` where inductor would have no compiler to call."""
    if device.type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise TraceError("there is no C++ compiler (g++ or clang++)")
