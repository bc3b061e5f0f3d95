"""A traced or compiled step against Pyro's handlers and Adam, with the same noise."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from probvae.foundation.adam import Adam
from probvae.foundation.seed import isolated_seed
from probvae.inference.compiled.program import LossAndGradient
from probvae.inference.compiled.restoring import restored
from probvae.inference.compiled.step_classes import PyroStep, Step, Taken, step_where_finite

_TOLERANCE = {torch.float64: 1e-10}
_SINGLE_TOLERANCE = 1e-5
# How many times as far as roundings of the weights move Pyro's own gradients
_ROUNDINGS, _MOST_TOLERANCE = 4, 1e-3
# The weights of the check lie so far from those of the trace: a number that was read there would show
_MOVE = 1e-3
# Adam's state before the step of the check: some steps were taken, and the moments are no zeros. The second moment is
# the square of the gradient's largest entry, so that the step moves each weight in proportion to its gradient; from
# zero moments every weight would move by the learning rate, whatever the size of its gradient.
_STEPS, _FIRST_MOMENT = 3, 0.1
# How many roundings a weight or a moment has on its way through Adam's step
_ADAM_ROUNDINGS = 8


class _After(NamedTuple):
    """The state after a step: losses, and a tensor for each parameter, each moment and each buffer, of its shape."""

    losses: list[float]
    weights: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    buffers: list[Tensor]


class _Gradient(NamedTuple):
    """The scale of one parameter's gradient: its largest entry (or a floor), and the error that it may have."""

    size: float
    error: float


def disagreement(step: Step, batch: Sequence[Tensor], seed: int = 1) -> str | None:
    """The first difference between ``step`` and Pyro's handlers with Adam, as text; None where nothing differs.

    Both take one step on the rows of ``batch``, (B, D) and others, in another order than the trace, from weights a
    little off, and with the same random numbers. Compared are the losses, and weights, moments and buffers after the
    step. Relative to the largest of the losses, and to the largest entry of each gradient, 1e-5 is allowed in float32
    and 1e-10 in float64; more where Pyro's own gradients are less exact than that: with several draws of a datum the
    weights w have the rounding of log w, 1e-4 of them where log w is -1000. The step of the check is so large that a
    gradient's largest entry moves its weight by one: an error of the gradient shows in the weights at its relative
    size. All is put back afterwards.
    """
    program, optimizer, device = step.program, step.optimizer, batch[0].device
    turned = [part.flip(0) if part.ndim else part for part in batch]
    with _moved(program, lambda _: 1 + _MOVE):
        losses, gradients, buffers = _by_pyro(program, optimizer, turned, seed)
        with isolated_seed(seed, device), _moved(program, _rounding):
            rounded = _by_pyro(program, optimizer, turned, seed)[1]
        sensitivity = _sensitivity(gradients, rounded)
        scales = _scales(losses, gradients, min(_ROUNDINGS * sensitivity, _MOST_TOLERANCE))
        by_adam = _after(step, scales, lambda: step_where_finite(optimizer, losses, gradients))
        with isolated_seed(seed, device):
            found = _after(step, scales, lambda: step(*turned))
    expected = by_adam._replace(buffers=buffers)
    return _difference(step, expected, found, scales)


def _by_pyro(
    program: LossAndGradient, optimizer: Adam, batch: Sequence[Tensor], seed: int
) -> tuple[list[Tensor], list[Tensor | None], list[Tensor]]:
    """Losses, gradients, and the buffers that are left, which are put back."""
    with isolated_seed(seed, batch[0].device), program.kept_buffers():
        losses, gradients = PyroStep(program, optimizer).losses_and_gradients(*batch)
        return list(losses), gradients, [buffer.clone() for buffer in program.buffers()]


def _sensitivity(gradients: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> float:
    """How far the gradients are from the others, relative to the largest entry of each.

    It is the median over the parameters, as one unit may pass a kink.
    """
    pairs = [(one, two) for one, two in zip(gradients, others, strict=True) if one is not None and two is not None]
    ratios = [float((one - two).abs().max() / one.abs().max()) for one, two in pairs]
    finite = [ratio for ratio in ratios if math.isfinite(ratio)]  # a gradient may be zero
    return statistics.median(finite) if finite else 0.0


def _scales(losses: Sequence[Tensor], gradients: Sequence[Tensor | None], tolerance: float) -> list[_Gradient]:
    least = _TOLERANCE.get(losses[0].dtype, _SINGLE_TOLERANCE)
    largest = [0.0 if gradient is None else float(gradient.abs().max()) for gradient in gradients]
    finite = [size for size in (*(abs(float(loss)) for loss in losses), *largest) if math.isfinite(size)]
    # a gradient that is nothing but rounding is as good as another
    floor = least * max(finite, default=0.0) or 1.0
    tolerance = max(least, tolerance)
    return [
        _Gradient(max(size, floor), tolerance * size + least * floor) if math.isfinite(size) else _Gradient(1.0, 0.0)
        for size in largest
    ]


def _after(step: Step, scales: Sequence[_Gradient], take: Callable[[], Taken]) -> _After:
    """The state after ``take()``, from an Adam that has taken some steps; all is put back."""
    program, optimizer = step.program, step.optimizer
    parts = (optimizer.parameters, optimizer.first, optimizer.second, program.buffers())
    learning_rate, (beta_1, beta_2) = optimizer.learning_rate, optimizer.betas
    with restored(chain(*parts, optimizer.steps)), torch.no_grad():
        for scale, first, second, number in zip(
            scales, optimizer.first, optimizer.second, optimizer.steps, strict=True
        ):
            first.fill_(_FIRST_MOMENT * scale.size)
            second.fill_(scale.size**2)
            number.fill_(_STEPS)
        # Adam's factors of a gradient cancel at this rate
        optimizer.learning_rate = (1 - beta_1 ** (_STEPS + 1)) / (1 - beta_1) / math.sqrt(1 - beta_2 ** (_STEPS + 1))
        try:
            losses, _ = take()
        finally:
            optimizer.learning_rate = learning_rate
        return _After(losses, *([tensor.clone() for tensor in part] for part in parts))


def _difference(step: Step, expected: _After, found: _After, scales: Sequence[_Gradient]) -> str | None:
    least = _TOLERANCE.get(step.optimizer.parameters[0].dtype, _SINGLE_TOLERANCE)
    # a small KL is a difference of numbers as large as the loss, with their rounding
    allowed = least * max(map(abs, expected.losses))
    losses = (torch.tensor(after.losses, dtype=torch.float64) for after in (expected, found))
    for number, (value, other) in enumerate(zip(*losses, strict=True)):
        what = "the loss" if number == 0 else f"output {number}"
        if text := _compared(what, value, other, allowed):
            return text
    for number, scale in enumerate(scales):
        if text := _difference_of_parameter(step.optimizer, number, expected, found, scale):
            return text
    return _difference_of_buffers(step.program.buffers(), expected.buffers, found.buffers, least)


def _difference_of_parameter(
    optimizer: Adam, number: int, expected: _After, found: _After, scale: _Gradient
) -> str | None:
    beta_1, beta_2 = optimizer.betas
    rounding = _ADAM_ROUNDINGS * torch.finfo(expected.weights[number].dtype).eps
    # an error of the gradient, times the derivative of each part of the step; and the rounding of numbers of its size
    first_error = (1 - beta_1) * scale.error + rounding * scale.size
    second_error = 2 * (1 - beta_2) * scale.size * scale.error + rounding * scale.size**2
    weight_error = scale.error / scale.size + rounding * (2 + float(expected.weights[number].abs().max()))
    for what, one, two, allowed in (
        ("the gradient of", expected.first, found.first, first_error),
        ("the squared gradient of", expected.second, found.second, second_error),
        ("the step of", expected.weights, found.weights, weight_error),
    ):
        if text := _compared(f"{what} parameter {number}", one[number], two[number], allowed):
            return text
    return None


def _difference_of_buffers(
    before: Sequence[Tensor], expected: Sequence[Tensor], found: Sequence[Tensor], least: float
) -> str | None:
    """Buffers that the step moves differ by rounding, relative to the largest of them; the others are the same."""
    moves = [one.is_floating_point() and not torch.equal(one, two) for one, two in zip(before, expected, strict=True)]
    sizes = [float(buffer.abs().max()) for buffer, does in zip(expected, moves, strict=True) if does]
    for number, (one, two, does) in enumerate(zip(expected, found, moves, strict=True)):
        if text := _compared(f"buffer {number}", one, two, least * max(sizes) if does else 0.0):
            return text
    return None


def _compared(what: str, one: Tensor, two: Tensor, allowed: float) -> str | None:
    if torch.equal(one, two) or not one.numel():
        return None
    error = float((one.double() - two.double()).abs().max())
    if error <= allowed or torch.allclose(one, two, rtol=0, atol=0, equal_nan=True):
        return None
    return f"{what} differs from Pyro's by {error:.1e} with the same noise (allowed: {allowed:.1e})"


def _rounding(weights: Tensor) -> Tensor:
    return 1 + torch.finfo(weights.dtype).eps * (2 * torch.rand_like(weights) - 1)


@contextmanager
def _moved(program: LossAndGradient, factor: Callable[[Tensor], Tensor | float]) -> Iterator[None]:
    """The parameters, of any shape, times ``factor`` of each of them."""
    with restored(program.all_parameters):
        for parameter in program.all_parameters:
            parameter.detach().mul_(factor(parameter.detach()))
        yield
