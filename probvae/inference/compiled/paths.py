"""Which way a fit's steps take: Pyro's handlers at every step, the traced graph, or the compiled one."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch._ops import OpOverload

from probvae.errors import ArgumentError, PathWarning, TraceError
from probvae.foundation.seed import isolated_seed
from probvae.inference.compiled.adam import Adam
from probvae.inference.compiled.check import disagreement
from probvae.inference.compiled.graph_steps import CompiledUpdate, GraphUpdate
from probvae.inference.compiled.inductor import check_compiler
from probvae.inference.compiled.program import LossAndGradient
from probvae.inference.compiled.recording import Recording
from probvae.inference.compiled.simplification import simplified
from probvae.inference.densities.non_finite import TORCH_ERRORS, short_reason

# Tracing and its check cost as much as some forty steps through Pyro's handlers, of which the graph saves half
_STEPS_WORTH_TRACING = 100
# Seconds, as measured on one core: what inductor takes for a graph without and for each operator, and what it saves in
# a step for each operator and for each number that operators other than matrix products write
_COMPILING, _COMPILING_OPERATOR = 12.0, 0.02
_SAVED_OPERATOR, _SAVED_NUMBER = 2e-6, 3e-10
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::convolution", "aten::convolution_backward")


class StepPath(NamedTuple):
    """``update(*batch)`` takes one step and gives the losses; None on the path through Pyro's handlers.

    ``name`` is ``"plain"``, ``"graph"`` or ``"compiled"``; ``reason`` says why it was taken.
    """

    name: str
    reason: str
    update: GraphUpdate | CompiledUpdate | None = None


def check_compile(compile: str | bool) -> None:
    """Raise unless ``compile`` is one of the ways that there are."""
    if not isinstance(compile, bool) and compile not in ("auto", "graph"):
        raise ArgumentError(f"compile: expected 'auto', 'graph', True or False, got {compile!r}. Use 'auto'.")


def choose_path(
    program: LossAndGradient,
    optimizer: Adam,
    batch: Sequence[Tensor],
    num_steps: int,
    compile: str | bool = "auto",
    seed: int = 0,
    may_compile: bool = True,
) -> StepPath:
    """The path of ``num_steps`` steps on batches like ``batch``; weights, moments and buffers are left as they were.

    The rule reads numbers of steps and of operators, never a clock: the same fit takes the same path everywhere. What
    was asked for and cannot be had is told by a :class:`~probvae.errors.PathWarning`.
    """
    if compile is False:
        return StepPath("plain", "compile=False")
    if compile == "auto" and num_steps < _STEPS_WORTH_TRACING:
        return StepPath("plain", f"{num_steps} steps are too few to be worth tracing")
    try:
        with isolated_seed(seed, batch[0].device):
            recording = program.record(batch)
            path = _graph_path(program, optimizer, recording, batch)
    except TraceError as error:
        return _instead("plain", f"the program cannot be traced: {error}", compile != "auto")
    except TORCH_ERRORS as error:  # the first step will say where
        return StepPath("plain", f"the program fails on the first batch: {short_reason(error)}")
    worth_it = compile is True or (compile == "auto" and worth_compiling(recording, num_steps))
    if not worth_it:
        return path
    if not may_compile:
        return _instead("graph", "several processes exchange gradients", compile is True, path.update)
    return _compiled_path(program, optimizer, batch, path, compile is True, seed)


def worth_compiling(recording: Recording, num_steps: int) -> bool:
    """Whether the compiler saves twice the time that it takes."""
    nodes = simplified(recording).nodes
    written = [value.tensor.numel() for node in nodes if _computes(node.operator) for value in node.outputs]
    saved = _SAVED_OPERATOR * len(nodes) + _SAVED_NUMBER * sum(written)
    return num_steps * saved > 2 * (_COMPILING + _COMPILING_OPERATOR * len(nodes))


def _computes(operator: OpOverload) -> bool:
    return operator._schema.name not in _PRODUCTS


def _graph_path(program: LossAndGradient, optimizer: Adam, recording: Recording, batch: Sequence[Tensor]) -> StepPath:
    update = GraphUpdate(program, optimizer, simplified(recording))
    if difference := disagreement(program, update.run, batch):
        raise TraceError(f"its graph is not trusted: {difference}")
    return StepPath("graph", f"{len(recording.nodes)} operators", update)


def _compiled_path(
    program: LossAndGradient, optimizer: Adam, batch: Sequence[Tensor], graph: StepPath, asked: bool, seed: int
) -> StepPath:
    """The compiled step, or else the graph."""
    try:
        check_compiler(batch[0].device)
        with isolated_seed(seed, batch[0].device):
            update = CompiledUpdate(program, optimizer, batch)
            difference = disagreement(program, update.gradients, batch)
    except TraceError as error:
        return _instead("graph", f"it cannot be compiled: {error}", asked, graph.update)
    if difference:
        return _instead("graph", f"the compiled step is not trusted: {difference}", asked, graph.update)
    return StepPath("compiled", graph.reason, update)


def _instead(name: str, reason: str, asked: bool, update: GraphUpdate | CompiledUpdate | None = None) -> StepPath:
    if asked:
        warnings.warn(f"compile: the {name} path is taken; {reason}", PathWarning, stacklevel=5)
    return StepPath(name, reason, update)
