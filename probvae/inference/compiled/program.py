"""Model, guide and objective as one function: from a batch to the loss and its gradient."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain

import torch
from torch import Tensor, nn

from probvae.foundation.pyro_internals import losses_read_no_numbers
from probvae.inference.compiled.recording import Trace, record
from probvae.inference.compiled.restoring import restored

# a batch's tensors -> the numbers that a step reports, the loss first
Losses = Callable[..., Sequence[Tensor]]


class LossAndGradient:
    """The program ``losses(*batch)``, whose first loss is the one that falls, and its gradient in ``parameters``.

    ``modules`` have the buffers that the losses read; ``clip`` is the largest norm that the gradient may have, or None.
    ``all_parameters`` are the parameters that may move. Once the program has run, ``parameters`` are those of them that
    the loss depends on.
    """

    def __init__(
        self,
        losses: Losses,
        modules: Iterable[nn.Module],
        parameters: Iterable[nn.Parameter],
        clip: float | None = None,
    ) -> None:
        self.losses, self.modules, self.clip = losses, list(modules), clip
        self.all_parameters = [parameter for parameter in dict.fromkeys(parameters) if parameter.requires_grad]
        self.parameters = self.all_parameters

    def __call__(self, *batch: Tensor) -> list[Tensor]:
        """The losses, scalars (), detached, then the gradients, each of its parameter's shape.

        Afterwards ``parameters`` are those that the loss depends on.
        """
        losses, found = self.losses_and_gradients(*batch)
        self.parameters = [p for p, g in zip(self.all_parameters, found, strict=True) if g is not None]
        return [*losses, *(gradient for gradient in found if gradient is not None)]

    def losses_and_gradients(self, *batch: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """The losses, scalars (), detached, and for each of ``all_parameters`` its gradient, of its shape, or None."""
        with torch.enable_grad():
            losses = self.losses(*batch)
            found = torch.autograd.grad(losses[0], self.all_parameters, allow_unused=True)
        return [loss.detach() for loss in losses], clipped_where_there(found, self.clip)

    def held(self) -> list[Tensor]:
        """The tensors, of any shapes, whose numbers a step reads, and which stay in their place."""
        weights = chain.from_iterable(module.parameters() for module in self.modules)
        return list(dict.fromkeys(chain(weights, self.buffers(), self.all_parameters)))

    def buffers(self) -> list[Tensor]:
        """The modules' buffers, of any shapes."""
        return list(dict.fromkeys(chain.from_iterable(module.buffers() for module in self.modules)))

    def record(self, batch: Sequence[Tensor]) -> Trace:
        """Run once on ``batch``, (B, D) and others, through Pyro's handlers, and write the operators down.

        The buffers are left as they were. Raises :class:`~probvae.errors.TraceError` where the structure may depend on
        data.
        """
        with self.kept_buffers(), losses_read_no_numbers():
            return record(self, batch, self.held())

    def kept_buffers(self) -> AbstractContextManager[None]:
        """A block after which the buffers are put back: the losses move batch normalisation's running means."""
        return restored(self.buffers())


def clipped(gradients: Sequence[Tensor], limit: float | None) -> Sequence[Tensor]:
    """The gradients, of any shapes, scaled down where their norm is above ``limit``.

    The formula is that of ``torch.nn.utils.clip_grad_norm_``.
    """
    if limit is None:
        return gradients
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    return [gradient * factor for gradient in gradients]


def clipped_where_there(gradients: Sequence[Tensor | None], limit: float | None) -> list[Tensor | None]:
    """:func:`clipped` of the gradients that there are, each of any shape; None stays None."""
    found = iter(clipped([gradient for gradient in gradients if gradient is not None], limit))
    return [None if gradient is None else next(found) for gradient in gradients]
