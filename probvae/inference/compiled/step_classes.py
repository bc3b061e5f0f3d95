"""The three ways to take one step of training, with one interface: Pyro's handlers, the traced graph, compiled code."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from probvae.foundation.adam import Adam
from probvae.foundation.pyro_internals import losses_read_no_numbers
from probvae.foundation.torch_internals import norms
from probvae.inference.compiled.fast_products import use_fast_products
from probvae.inference.compiled.inductor import compiled
from probvae.inference.compiled.program import LossAndGradient
from probvae.inference.compiled.recording import Trace, record
from probvae.inference.compiled.restoring import restored
from probvae.inference.compiled.simplification import simplify

# the losses, and whether the step was taken
Taken = tuple[list[float], bool]


class Step(ABC):
    """One step of training on a batch; ``path`` names the way that it takes, and ``reason`` says why.

    ``step(*batch)`` gives the losses before the step, and whether it was taken: where the loss or a gradient is not
    finite, weights and moments stay as they are. The tensors of ``batch`` have the shapes of the example that the step
    was made for.
    """

    path: ClassVar[str]

    def __init__(self, program: LossAndGradient, optimizer: Adam, reason: str = "") -> None:
        self.program, self.optimizer, self.reason = program, optimizer, reason

    @abstractmethod
    def __call__(self, *batch: Tensor) -> Taken:
        """Take one step on ``batch``, tensors of the shapes of the example."""


class GradientStep(Step):
    """A step whose gradients can be had before Adam's part: several processes exchange them there."""

    def __call__(self, *batch: Tensor) -> Taken:
        """Take one step on ``batch``, tensors of the shapes of the example."""
        return step_where_finite(self.optimizer, *self.losses_and_gradients(*batch))

    @abstractmethod
    def losses_and_gradients(self, *batch: Tensor) -> tuple[Sequence[Tensor], list[Tensor | None]]:
        """The losses, scalars (), and for each of the optimiser's parameters its gradient, of its shape, or None."""


class PyroStep(GradientStep):
    """Pyro's handlers and torch's autograd at every step; batches of all shapes are welcome."""

    path = "pyro"

    def losses_and_gradients(self, *batch: Tensor) -> tuple[Sequence[Tensor], list[Tensor | None]]:
        """The losses, scalars (), and for each of the optimiser's parameters its gradient, of its shape, or None."""
        losses, found = self.program.losses_and_gradients(*batch)
        gradients = {p.data_ptr(): gradient for p, gradient in zip(self.program.all_parameters, found, strict=True)}
        return losses, [gradients.get(parameter.data_ptr()) for parameter in self.optimizer.parameters]


class TracedStep(GradientStep):
    """The operators of the losses and gradients, run as the simplified ``trace`` has them; then Adam."""

    path = "traced"

    def __init__(self, program: LossAndGradient, optimizer: Adam, trace: Trace, reason: str = "") -> None:
        super().__init__(program, optimizer, reason)
        self.num_losses = len(trace.outputs) - len(program.parameters)
        self.run = use_fast_products(trace).function()
        self.places = _places(program, optimizer)

    def losses_and_gradients(self, *batch: Tensor) -> tuple[Sequence[Tensor], list[Tensor | None]]:
        """The losses, scalars (), and for each of the optimiser's parameters its gradient, of its shape, or None."""
        outputs = self.run(*batch)
        gradients: list[Tensor | None] = [None] * len(self.optimizer.parameters)
        for place, gradient in zip(self.places, outputs[self.num_losses :], strict=True):
            gradients[place] = gradient
        return outputs[: self.num_losses], gradients


class InductorStep(Step):
    """The losses, their gradients and Adam's arithmetic as one piece of compiled code.

    Raises :class:`~probvae.errors.TraceError` where the program cannot be compiled.
    """

    path = "compiled"

    def __init__(self, program: LossAndGradient, optimizer: Adam, batch: Sequence[Tensor], reason: str = "") -> None:
        super().__init__(program, optimizer, reason)
        places = _places(program, optimizer)
        parts = (optimizer.parameters, optimizer.first, optimizer.second, optimizer.steps)
        self.parameters, self.first, self.second, self.steps = ([part[i] for i in places] for part in parts)
        self.scalars = torch.ones(2, dtype=batch[0].dtype)
        self.cells = self.scalars.numpy()  # the same memory, written in a tenth of the time
        held = [*program.held(), *self.parameters, *self.first, *self.second, *self.steps]
        inputs = [*batch, self.scalars.to(batch[0].device)]
        with self._kept(), losses_read_no_numbers():
            trace = use_fast_products(simplify(record(self._step, inputs, held, program.live()), keep_views=False))
        self.run = torch.no_grad()(compiled(trace, self._kept))

    def __call__(self, *batch: Tensor) -> Taken:
        """Take one step on ``batch``, tensors of the shapes of the example."""
        self.cells[0], self.cells[1] = self.optimizer.scalars(int(self.steps[0]) + 1)
        *losses, taken = self.run(*batch, self.scalars.to(batch[0].device))[0].tolist()
        return losses, bool(taken)

    def _step(self, *inputs: Tensor) -> Sequence[Tensor]:
        """The step as the tracer sees it: losses and whether it was taken, in one tensor."""
        *batch, scalars = inputs
        outputs = self.program(*batch)
        num_losses = len(outputs) - len(self.parameters)
        losses, gradients = outputs[:num_losses], outputs[num_losses:]
        finite = _all_finite(losses[0], gradients)
        with torch.no_grad():
            parts = zip(self.parameters, gradients, self.first, self.second, strict=True)
            for parameter, gradient, *moments in parts:
                self.optimizer.step_as_operators(parameter, gradient, (moments[0], moments[1]), scalars, finite)
            for step in self.steps:
                step.add_(finite)
        return [torch.stack([*losses, finite.to(losses[0])])]

    def _kept(self) -> AbstractContextManager[None]:
        return restored([*self.program.buffers(), *self.parameters, *self.first, *self.second, *self.steps])


def step_where_finite(optimizer: Adam, losses: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Taken:
    """Adam's step, where the first of the losses () and the squares of all gradients are finite.

    ``gradients`` has one tensor of each parameter's shape, or None. The result is the losses, and whether the step was
    taken.
    """
    sizes = norms([gradient for gradient in gradients if gradient is not None])
    scalars = torch.stack([*losses, *sizes]).tolist()  # one transfer, and not one for each
    taken = all(map(math.isfinite, (scalars[0], *scalars[len(losses) :])))
    if taken:
        optimizer.step(gradients)
    return scalars[: len(losses)], taken


def _all_finite(loss: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """The condition of :func:`step_where_finite` as operators, for a graph."""
    finite = [(gradient * gradient).sum().isfinite() for gradient in gradients]
    return reduce(torch.logical_and, finite, loss.isfinite())


def _places(program: LossAndGradient, optimizer: Adam) -> list[int]:
    """The places of the program's parameters among the optimiser's."""
    known = {parameter.data_ptr(): place for place, parameter in enumerate(optimizer.parameters)}
    return [known[parameter.data_ptr()] for parameter in program.parameters]
