"""Model, guide and objective as one function: from a batch to the loss and its gradient."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain

import torch
from torch import Tensor, nn

from probvae.errors import TraceError
from probvae.foundation.pyro_internals import losses_read_no_numbers
from probvae.inference.compiled.recording import Trace, record, storage_of
from probvae.inference.compiled.restoring import restored
from probvae.inference.compiled.watch import Watch

# a batch's tensors -> the numbers that a step reports, the loss first
Losses = Callable[..., Sequence[Tensor]]


class LossAndGradient:
    """The program ``losses(*batch)``, whose first loss is the one that falls, and its gradient in ``parameters``.

    ``programs`` are the modules, functions and objects that the losses run and read; ``clip`` is the largest norm that
    the gradient may have, or None. ``all_parameters`` are the parameters that may move. Once the program has run,
    ``parameters`` are those of them that the loss depends on. ``watch`` knows what a recording has read, once there is
    one.
    """

    def __init__(
        self,
        losses: Losses,
        programs: Iterable[object],
        parameters: Iterable[nn.Parameter],
        clip: float | None = None,
    ) -> None:
        self.losses, self.programs, self.clip = losses, list(programs), clip
        self.all_parameters = list(dict.fromkeys(parameters))
        self.parameters = self.all_parameters
        self.watch: Watch | None = None
        self._reads_tensors_anew = True

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
            found = gradients_where_wanted(losses[0], self.all_parameters)
        return [loss.detach() for loss in losses], clipped_where_there(found, self.clip)

    @property
    def modules(self) -> list[nn.Module]:
        """The modules among the programs, and once there is a recording all modules that they reach."""
        return self.watch.modules if self.watch else [part for part in self.programs if isinstance(part, nn.Module)]

    def held(self) -> list[Tensor]:
        """The tensors, of any shapes, whose numbers a step reads, and which stay in their place."""
        weights = chain.from_iterable(module.parameters() for module in self.modules)
        return list(dict.fromkeys(chain(weights, self.buffers(), self.all_parameters)))

    def live(self) -> list[Tensor]:
        """The program's own tensors, of any shapes, whose numbers a step reads anew, and does not change."""
        return self.watch.tensors if self.watch and self._reads_tensors_anew else []

    def buffers(self) -> list[Tensor]:
        """The modules' buffers, of any shapes."""
        return list(dict.fromkeys(chain.from_iterable(module.buffers() for module in self.modules)))

    def record(self, batch: Sequence[Tensor]) -> Trace:
        """Run once on ``batch``, (B, D) and others, through Pyro's handlers, and write the operators down.

        The buffers are left as they were. Raises :class:`~probvae.errors.TraceError` where the structure may depend on
        data, and where the program changes what it reads: a recording would not.
        """
        self.watch = Watch(self.programs)
        trace = self._record(batch)
        if self.watch.ignore_bookkeeping():  # the first run may keep something for the next ones
            trace = self._record(batch)
            if text := self.watch.ignore_bookkeeping():
                raise TraceError(f"the program changes what it reads: {text}")
        read = [node.meta["tensor"] for node in trace.bound]
        self.watch.take_for_constants(
            tensor for tensor in read if isinstance(tensor, Tensor) and storage_of(tensor) not in trace.held
        )
        return trace

    def _record(self, batch: Sequence[Tensor]) -> Trace:
        with self.kept_buffers(), losses_read_no_numbers():
            if self.live():
                try:
                    return record(self, batch, self.held(), self.live())
                except TraceError:  # numbers in its own tensors decide on the program's way: they are constants
                    self._reads_tensors_anew = False
            return record(self, batch, self.held())

    def kept_buffers(self) -> AbstractContextManager[None]:
        """A block after which the buffers are put back: the losses move batch normalisation's running means."""
        return restored(self.buffers())


def gradients_where_wanted(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradient of ``loss`` () in each of ``parameters``, of its shape; None where it is frozen or not in the loss.

    >>> a, b = torch.ones(2, requires_grad=True), torch.ones(1)
    >>> gradients_where_wanted((a * b).sum(), [a, b])
    [tensor([1., 1.]), None]
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    if not (wanted and loss.requires_grad):
        return [None] * len(parameters)
    found = iter(torch.autograd.grad(loss, wanted, allow_unused=True))
    return [next(found) if parameter.requires_grad else None for parameter in parameters]


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
