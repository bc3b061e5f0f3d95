"""One step of training without Pyro's handlers: the losses, and the parameters moved."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import reduce
from itertools import chain

import torch
from torch import Tensor

from probvae.inference.compiled.adam import Adam, adam_update
from probvae.inference.compiled.fast_products import with_fast_products
from probvae.inference.compiled.inductor import compiled
from probvae.inference.compiled.program import LossAndGradient, numbers_unread
from probvae.inference.compiled.recording import Recording, record
from probvae.inference.compiled.restoring import restored
from probvae.inference.compiled.simplification import simplified
from probvae.inference.compiled.source import as_function


class GraphUpdate:
    """The operators of the losses and gradients, run as they were written down; then Adam.

    Where the loss or a gradient is not finite, all stays as it is. A call gives the losses and whether the step was
    taken.
    """

    def __init__(self, program: LossAndGradient, optimizer: Adam, recording: Recording) -> None:
        self.run, self.optimizer = torch.no_grad()(as_function(with_fast_products(recording))), optimizer
        self.num_losses = len(recording.outputs) - len(program.parameters)
        self.places = _places(program, optimizer)

    def __call__(self, *batch: Tensor) -> tuple[list[float], bool]:
        losses, gradients = self.losses_and_gradients(*batch)
        return step_where_finite(self.optimizer, losses, gradients)

    def losses_and_gradients(self, *batch: Tensor) -> tuple[Sequence[Tensor], list[Tensor | None]]:
        """What a step needs, and the optimiser not asked: one gradient for each of its parameters."""
        outputs = self.run(*batch)
        gradients: list[Tensor | None] = [None] * len(self.optimizer.parameters)
        for place, gradient in zip(self.places, outputs[self.num_losses :], strict=True):
            gradients[place] = gradient
        return outputs[: self.num_losses], gradients


class CompiledUpdate:
    """The losses, their gradients and Adam's arithmetic as one piece of compiled code.

    A call does and gives what that of :class:`GraphUpdate` does. Raises :class:`~probvae.errors.TraceError` where it
    cannot be.
    """

    def __init__(self, program: LossAndGradient, optimizer: Adam, batch: Sequence[Tensor]) -> None:
        self.program, self.optimizer = program, optimizer
        places = _places(program, optimizer)
        parts = (optimizer.parameters, optimizer.first, optimizer.second, optimizer.steps)
        self.parameters, self.first, self.second, self.steps = ([part[i] for i in places] for part in parts)
        self.scalars = torch.ones(2, dtype=batch[0].dtype)
        self.numbers = self.scalars.numpy()  # the same memory, written in a tenth of the time
        held = [*program.held(), *self.parameters, *self.first, *self.second, *self.steps]
        inputs = [*batch, self.scalars.to(batch[0].device)]
        with self._kept(), numbers_unread():
            recording = with_fast_products(simplified(record(self._step, inputs, held), keep_views=False))
        self.run = torch.no_grad()(compiled(recording, self._kept))

    def __call__(self, *batch: Tensor) -> tuple[list[float], bool]:
        number = int(self.steps[0]) + 1
        first, second = self.optimizer.betas
        self.numbers[0] = self.optimizer.learning_rate / (1 - first**number)
        self.numbers[1] = math.sqrt(1 - second**number)
        *losses, taken = self.run(*batch, self.scalars.to(batch[0].device))[0].tolist()
        return losses, bool(taken)

    def gradients(self, *batch: Tensor) -> list[Tensor]:
        """The losses and the gradients, which the first moment shows when it starts from zero; nothing is moved."""
        with self._kept(), torch.no_grad():
            torch._foreach_zero_(self.first)
            losses, _ = self(*batch)
            return [
                *self.first[0].new_tensor(losses),
                *(moment / (1 - self.optimizer.betas[0]) for moment in self.first),
            ]

    def _step(self, *inputs: Tensor) -> Sequence[Tensor]:
        *batch, scalars = inputs
        outputs = self.program(*batch)
        number = len(outputs) - len(self.parameters)
        losses, gradients = outputs[:number], outputs[number:]
        moments, finite = (self.first, self.second), _all_finite(losses[0], gradients)
        with torch.no_grad():
            adam_update(self.parameters, gradients, moments, scalars, finite, self.optimizer.betas, self.optimizer.eps)
            for step in self.steps:
                step.add_(finite)
        return [torch.stack([*losses, finite.to(losses[0])])]

    def _kept(self) -> AbstractContextManager[None]:
        buffers = chain.from_iterable(module.buffers() for module in self.program.modules)
        return restored([*buffers, *self.parameters, *self.first, *self.second, *self.steps])


def step_where_finite(
    optimizer: Adam, losses: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> tuple[list[float], bool]:
    """Adam's step, where the first loss and the squares of all gradients are finite; the losses, and whether it was."""
    found = [gradient for gradient in gradients if gradient is not None]
    norms = torch._foreach_norm(found) if found else ()
    numbers = torch.stack([*losses, *norms]).tolist()  # in one transfer
    taken = all(map(math.isfinite, (numbers[0], *numbers[len(losses) :])))
    if taken:
        optimizer.step(gradients)
    return numbers[: len(losses)], taken


def _all_finite(loss: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """The same as operators, for a graph."""
    finite = [(gradient * gradient).sum().isfinite() for gradient in gradients]
    return reduce(torch.logical_and, finite, loss.isfinite())


def _places(program: LossAndGradient, optimizer: Adam) -> list[int]:
    """Where the program's parameters stand among the optimiser's."""
    known = {parameter.data_ptr(): place for place, parameter in enumerate(optimizer.parameters)}
    return [known[parameter.data_ptr()] for parameter in program.parameters]
