"""Which way a fit's steps take: Pyro's handlers at every step, the traced graph, or the compiled one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from probvae._seed import isolated_seed
from probvae.errors import ArgumentError, TraceError
from probvae.inference.compiled.check import disagreement
from probvae.inference.compiled.program import LossAndGradient
from probvae.inference.compiled.simplification import simplified
from probvae.inference.compiled.source import as_function

# Tracing and its check cost as much as some forty steps through Pyro's handlers, of which the graph saves half
_STEPS_WORTH_TRACING = 100


class StepPath(NamedTuple):
    """``run`` gives the losses and the gradients of a batch; None on the path through Pyro's handlers.

    ``name`` is ``"plain"``, ``"graph"`` or ``"compiled"``; ``reason`` says why it was taken.
    """

    name: str
    reason: str
    run: Callable[..., Sequence[Tensor]] | None = None


def check_compile(compile: str | bool) -> None:
    """Raise unless ``compile`` is one of the ways that there are."""
    if not isinstance(compile, bool) and compile not in ("auto", "graph"):
        raise ArgumentError(f"compile: expected 'auto', 'graph', True or False, got {compile!r}. Use 'auto'.")


def choose_path(
    program: LossAndGradient, batch: Sequence[Tensor], num_steps: int, compile: str | bool, seed: int
) -> StepPath:
    """The path of a fit of ``num_steps`` steps on batches like ``batch``.

    The rule reads numbers of steps and of operators, never a clock: the same fit takes the same path everywhere.
    """
    if compile is False:
        return StepPath("plain", "compile=False")
    if compile == "auto" and num_steps < _STEPS_WORTH_TRACING:
        return StepPath("plain", f"{num_steps} steps are too few to be worth tracing")
    return traced_path(program, batch, seed)


def traced_path(program: LossAndGradient, batch: Sequence[Tensor], seed: int) -> StepPath:
    """The traced graph, if it can be had and agrees with Pyro."""
    try:
        with isolated_seed(seed, batch[0].device):
            recording = simplified(program.record(batch))
        run = as_function(recording)
        difference = disagreement(program, run, batch)
    except TraceError as error:
        return StepPath("plain", f"the program cannot be traced: {error}")
    except ValueError as error:  # the first step will say where
        return StepPath("plain", f"the program fails on the first batch: {error}".split("\n")[0])
    if difference:
        return StepPath("plain", f"the traced graph is not trusted: {difference}")
    return StepPath("graph", f"{len(recording.nodes)} operators", torch.no_grad()(run))
