"""The door of this room: which way the steps of a fit take, Pyro's handlers, the traced graph, or compiled code."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from probvae.errors import PathWarning, TraceError
from probvae.foundation.adam import Adam
from probvae.foundation.seed import isolated_seed
from probvae.inference.compiled.check import disagreement
from probvae.inference.compiled.inductor import check_compiler
from probvae.inference.compiled.program import LossAndGradient
from probvae.inference.compiled.recording import Trace, results, tensor_of
from probvae.inference.compiled.restoring import programs_restored
from probvae.inference.compiled.simplification import simplify
from probvae.inference.compiled.step_classes import InductorStep, PyroStep, Step, TracedStep
from probvae.inference.densities.non_finite import TORCH_ERRORS, short_reason

# Tracing and its check cost as much as some forty steps through Pyro's handlers, of which the graph saves half
_STEPS_WORTH_TRACING = 100
# Seconds, as measured on one core: the time that inductor takes for a graph without and for each operator, and the time
# that it saves in a step for each operator and for each number that operators other than matrix products write
_COMPILING, _COMPILING_OPERATOR = 12.0, 0.02
_SAVED_OPERATOR, _SAVED_NUMBER = 2e-6, 3e-10
_ATEN = torch.ops.aten
_PRODUCTS = {
    *(_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.baddbmm.default),
    *(_ATEN.convolution.default, _ATEN.convolution_backward.default),
}
# The names of the paths in runs and checkpoints of version 0.1
_NAMES_BEFORE = {"plain": PyroStep.path, "graph": TracedStep.path}


def current_name(path: str) -> str:
    """The present name of a path that an older version may have recorded.

    >>> current_name("plain"), current_name("compiled")
    ('pyro', 'compiled')
    """
    return _NAMES_BEFORE.get(path, path)


def choose_step(
    program: LossAndGradient,
    optimizer: Adam,
    batch: Sequence[Tensor],
    num_steps: int,
    compile: str | bool = "auto",
    seed: int = 0,
    may_compile: bool = True,
) -> Step:
    """The way to take ``num_steps`` steps on batches of the shapes of ``batch``, (B, D) and others.

    Weights, moments and buffers are left as they were. The rule reads numbers of steps and of operators, never a clock:
    the same fit takes the same path everywhere. A :class:`~probvae.errors.PathWarning` tells where the user has asked
    for a path that cannot be had.
    """
    pyro_step = PyroStep(program, optimizer, "compile=False")
    if compile is False:
        return pyro_step
    if compile == "auto" and num_steps < _STEPS_WORTH_TRACING:
        return _because(pyro_step, f"{num_steps} steps are too few to be worth tracing")
    try:
        with isolated_seed(seed, batch[0].device), programs_restored(program.programs):
            trace = program.record(batch)
            reason = f"{len(trace.operators)} operators"
            simplify(trace)
            is_worth_compiling = compile == "auto" and worth_compiling(trace, num_steps)
            traced_step = _traced_step(program, optimizer, trace, batch, reason)
            check_unchanged(program)
    except TraceError as error:
        return _instead(pyro_step, f"the program cannot be traced: {error}", compile != "auto")
    except TORCH_ERRORS as error:  # the first step will say where
        return _because(pyro_step, f"the program fails on the first batch: {short_reason(error)}")
    if compile is not True and not is_worth_compiling:
        return traced_step
    if not may_compile:
        return _instead(traced_step, "several processes exchange gradients", compile is True)
    return _inductor_step(program, optimizer, batch, traced_step, compile is True, seed)


def worth_compiling(trace: Trace, num_steps: int) -> bool:
    """True if the compiler saves twice the time that it takes for the simplified ``trace``."""
    operators = trace.operators
    written = [
        tensor_of(result).numel() for node in operators if node.target not in _PRODUCTS for result in results(node)
    ]
    saved = _SAVED_OPERATOR * len(operators) + _SAVED_NUMBER * sum(written)
    return num_steps * saved > 2 * (_COMPILING + _COMPILING_OPERATOR * len(operators))


def check_unchanged(program: LossAndGradient) -> None:
    """Raise :class:`~probvae.errors.TraceError` where the program reads something else than when it was recorded."""
    if program.watch is not None and (text := program.watch.change()):
        raise TraceError(f"the program changes what it reads: {text}")


def _traced_step(program: LossAndGradient, optimizer: Adam, trace: Trace, batch: Sequence[Tensor], reason: str) -> Step:
    step = TracedStep(program, optimizer, trace, reason)
    if difference := disagreement(step, batch):
        raise TraceError(f"its graph is not trusted: {difference}")
    return step


def _inductor_step(
    program: LossAndGradient, optimizer: Adam, batch: Sequence[Tensor], traced_step: Step, asked: bool, seed: int
) -> Step:
    """The compiled step, or else the traced one."""
    try:
        check_compiler(batch[0].device)
        with isolated_seed(seed, batch[0].device):
            step = InductorStep(program, optimizer, batch, traced_step.reason)
            difference = disagreement(step, batch)
    except TraceError as error:
        return _instead(traced_step, f"it cannot be compiled: {error}", asked)
    if difference:
        return _instead(traced_step, f"the compiled step is not trusted: {difference}", asked)
    return step


def _because(step: Step, reason: str) -> Step:
    step.reason = reason
    return step


def _instead(step: Step, reason: str, asked: bool) -> Step:
    """The next best step, with a warning where the user has ``asked`` for a better one."""
    if asked:
        warnings.warn(f"compile: the {step.path} path is taken; {reason}", PathWarning, stacklevel=5)
    return _because(step, reason)
