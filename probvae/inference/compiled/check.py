"""A traced computation against the program itself, with the same noise."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from probvae.foundation.seed import isolated_seed
from probvae.inference.compiled.program import LossAndGradient
from probvae.inference.compiled.restoring import restored

_TOLERANCE = {torch.float64: 1e-10}
_SINGLE_TOLERANCE = 1e-5
# How many times what roundings of the weights do to Pyro's own gradients
_ROUNDINGS, _MOST_TOLERANCE = 4, 1e-3
# The weights of the check lie so far from those of the trace: a number that was read there would show
_MOVE = 1e-3


def disagreement(
    program: LossAndGradient, run: Callable[..., Sequence[Tensor]], batch: Sequence[Tensor], seed: int = 1
) -> str | None:
    """What differs between ``run`` and Pyro's own loss and gradients, as text; None where nothing does.

    Both see the rows of ``batch`` in another order than the trace, weights a little off, and the same random numbers.
    Relative to the largest entry of each gradient, and to the largest of the losses, 1e-5 is allowed in float32 and
    1e-10 in float64; more where Pyro's own gradients are less exact than that: with several draws of a datum the
    weights w have the rounding of log w, 1e-4 of them where log w is -1000. All is put back afterwards.
    """
    turned = [part.flip(0) if part.ndim else part for part in batch]

    def evaluated(function: Callable[..., Sequence[Tensor]]) -> Sequence[Tensor]:
        with isolated_seed(seed, batch[0].device), program.kept_buffers():
            return function(*turned)

    with _moved(program, lambda _: 1 + _MOVE):
        expected = evaluated(program)
        with torch.no_grad():
            found = evaluated(run)
        with isolated_seed(seed, batch[0].device), _moved(program, _rounding):
            rounded = evaluated(program)
    num_losses = len(expected) - len(program.parameters)
    sensitivity = _sensitivity(expected[num_losses:], rounded[num_losses:])
    return _difference(expected, found, num_losses, min(_ROUNDINGS * sensitivity, _MOST_TOLERANCE))


def _rounding(weights: Tensor) -> Tensor:
    return 1 + torch.finfo(weights.dtype).eps * (2 * torch.rand_like(weights) - 1)


def _sensitivity(gradients: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """How far they are from the others, relative to the largest entry; in the median, as one unit may pass a kink."""
    pairs = zip(gradients, others, strict=True)
    ratios = [float((one - two).abs().max() / one.abs().max()) for one, two in pairs]
    finite = [ratio for ratio in ratios if math.isfinite(ratio)]  # a gradient may be zero
    return statistics.median(finite) if finite else 0.0


def _difference(
    expected: Sequence[Tensor], found: Sequence[Tensor], num_losses: int, gradient_tolerance: float
) -> str | None:
    sizes = [float(tensor.abs().max()) for tensor in expected]
    # a small KL is a difference of numbers as large as the loss, with their rounding
    sizes[:num_losses] = [max(sizes[:num_losses])] * num_losses
    # a gradient that is nothing but rounding is as good as another
    overall = max(sizes)
    for number, (one, two) in enumerate(zip(expected, found, strict=True)):
        least = _TOLERANCE.get(one.dtype, _SINGLE_TOLERANCE)
        tolerance = least if number < num_losses else max(least, gradient_tolerance)
        allowed = tolerance * sizes[number] + least**2 * overall
        error = float((one - two).abs().max())
        if not error <= allowed and not torch.allclose(one, two, rtol=0, atol=0, equal_nan=True):
            what = "the loss" if number == 0 else f"output {number}"
            return f"{what} differs from Pyro's by {error:.1e} with the same noise (allowed: {allowed:.1e})"
    return None


@contextmanager
def _moved(program: LossAndGradient, factor: Callable[[Tensor], Tensor | float]) -> Iterator[None]:
    with restored(program.parameters):
        for parameter in program.parameters:
            parameter.detach().mul_(factor(parameter.detach()))
        yield
