"""The walk of x: which files the data pass through from ``fit`` to the loss of the first step.

One fit of one step runs through Pyro's handlers while ``sys.setprofile`` notes each call and return of the package's
functions. A call belongs to the walk when all calls around it do, and x comes out of it (as its result, or inside the
object that it builds) or the loss is computed inside it: this is what a reader has to open who follows x. Checks that
look at x and give nothing back are no part of it. The walk goes to a function's file at its call and back to its
caller's file at its return; it is over when ``Objective.step_loss`` of the step begins. The fit of version 0.1 returned
15 times to a file that it had left, six of them by a call.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import probvae
from probvae import VAE, fit

PACKAGE = Path(probvae.__file__).parent
NUM_DATA = 11
# how deep objects of the package are searched for x
_DEPTH = 4


@dataclass(eq=False)
class Call:
    """A call of a function of the package, and the calls inside it."""

    file: str
    name: str
    parent: "Call | None"
    inside: list["Call"] = field(default_factory=list)
    gives_x: bool = False
    has_loss: bool = False


class Step(NamedTuple):
    """A file of the walk, and whether a call led there; elsewhere a call was over, and its caller goes on."""

    file: str
    by_call: bool


def walk_of_x() -> list[Step]:
    """The files that x visits from ``fit`` to the loss, in order; neighbours differ."""
    steps: list[Step] = []
    _append(_recorded().inside[0], steps)
    return [next(same) for _, same in groupby(steps, key=lambda step: step.file)]


def calls_of_fit() -> list[tuple[str, str]]:
    """File and function of all calls of the package's functions, from ``fit`` to the gradient of the first step."""

    def inside(call: Call) -> Iterator[tuple[str, str]]:
        yield call.file, call.name
        for inner in call.inside:
            yield from inside(inner)

    return list(inside(_recorded().inside[0]))


def num_returns(walk: list[Step]) -> int:
    """How often the walk returns to a file that it had left, to go on in a caller or by another call."""
    return len(walk) - len({step.file for step in walk})


def num_reentries(walk: list[Step]) -> int:
    """The returns by a call alone: how often x is handed to a file that the walk had left."""
    entered = [file for file, _ in groupby(step.file for step in walk if step.by_call)]
    return len(entered) - len(set(entered))


def _recorded() -> Call:
    """The calls of one fit of one step, up to the loss that is differentiated."""
    vae, x = VAE.example(), torch.randn(NUM_DATA, VAE.example().model.data_dim)
    fit(VAE.example(), x, epochs=1, batch_size=NUM_DATA, compile=False, progress=False)  # imports
    top = now = Call("", "", None)
    losses: list[Call] = []
    over = False

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal now, over
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        if over or event not in ("call", "return"):
            return
        if path.parts[-3:] == ("torch", "autograd", "__init__.py") and name in ("grad", "backward"):
            over = True
        elif PACKAGE in path.parents and event == "call":
            now.inside.append(Call(path.relative_to(PACKAGE).as_posix(), name, now))
            now = now.inside[-1]
            losses.extend([now] if name == "step_loss" else [])
        elif PACKAGE in path.parents and now.parent is not None:
            built = frame.f_locals.get("self") if name == "__init__" else argument
            now.gives_x, now = _carries(built, x.shape[1], _DEPTH), now.parent

    sys.setprofile(note)
    try:
        fit(vae, x, epochs=1, batch_size=NUM_DATA, compile=False, progress=False)
    finally:
        sys.setprofile(None)
    call: Call | None = losses[-1]
    while call is not None:
        call.has_loss, call = True, call.parent
    return top


def _carries(value: Any, data_dim: int, depth: int) -> bool:
    """Whether rows of the data are in ``value``."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.ndim == 2 and value.shape[0] == NUM_DATA and value.shape[1] == data_dim
    if depth == 0 or isinstance(value, nn.Module):
        return False
    if isinstance(value, tuple | list):
        return any(_carries(part, data_dim, depth - 1) for part in value)
    if type(value).__module__.startswith("probvae."):
        return any(_carries(part, data_dim, depth - 1) for part in getattr(value, "__dict__", {}).values())
    return False


def _append(call: Call, steps: list[Step]) -> bool:
    """Append the files of ``call`` and of what is inside it; True when the loss has been reached."""
    steps.append(Step(call.file, True))
    if call.has_loss and call.name == "step_loss":
        return True
    for inner in call.inside:
        if inner.gives_x or inner.has_loss:
            if _append(inner, steps):
                return True
            steps.append(Step(call.file, False))
    return False


if __name__ == "__main__":
    found = walk_of_x()
    print("\n".join(step.file for step in found))
    print(f"{num_returns(found)} returns to a file that it had left, {num_reentries(found)} of them by a call")
