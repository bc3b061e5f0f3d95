"""A traced computation against the program itself, with the same noise."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from probvae._seed import isolated_seed
from probvae.inference.compiled.program import LossAndGradient
from probvae.inference.compiled.restoring import restored

_TOLERANCE = {torch.float64: 1e-10}
_SINGLE_TOLERANCE = 1e-5
# The weights of the check lie so far from those of the trace: a number that was read there would show
_MOVE = 1e-3


def disagreement(
    program: LossAndGradient, run: Callable[..., Sequence[Tensor]], batch: Sequence[Tensor], seed: int = 1
) -> str | None:
    """What differs between ``run`` and Pyro's own loss and gradients, as text; None where nothing does.

    Both see the rows of ``batch`` in another order than the trace, weights a little off, and the same random numbers.
    Relative to the largest entry of each gradient, and to the largest of the losses, 1e-5 is allowed in float32 and
    1e-10 in float64. All is put back afterwards.
    """
    turned = [part.flip(0) if part.ndim else part for part in batch]
    device = batch[0].device
    with _moved(program):
        with isolated_seed(seed, device), program.kept_buffers():
            expected = program(*turned)
        with isolated_seed(seed, device), program.kept_buffers(), torch.no_grad():
            found = run(*turned)
    return _difference(expected, found, len(expected) - len(program.parameters))


def _difference(expected: Sequence[Tensor], found: Sequence[Tensor], num_losses: int) -> str | None:
    sizes = [float(tensor.abs().max()) for tensor in expected]
    # a small KL is a difference of numbers as large as the loss, with their rounding
    sizes[:num_losses] = [max(sizes[:num_losses])] * num_losses
    # a gradient that is nothing but rounding is as good as another
    overall = max(sizes)
    for number, (one, two) in enumerate(zip(expected, found, strict=True)):
        tolerance = _TOLERANCE.get(one.dtype, _SINGLE_TOLERANCE)
        allowed = tolerance * (sizes[number] + tolerance * overall)
        error = float((one - two).abs().max())
        if not error <= allowed and not torch.allclose(one, two, rtol=0, atol=0, equal_nan=True):
            what = "the loss" if number == 0 else f"output {number}"
            return f"{what} differs from Pyro's by {error:.1e} with the same noise (allowed: {allowed:.1e})"
    return None


@contextmanager
def _moved(program: LossAndGradient) -> Iterator[None]:
    with restored(program.parameters):
        for parameter in program.parameters:
            parameter.detach().mul_(1 + _MOVE)
        yield
