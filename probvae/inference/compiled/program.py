"""Model, guide and objective as one function: from a batch to the loss and its gradient."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from probvae.inference.compiled.recording import Recording, record
from probvae.inference.compiled.restoring import restored

# a batch's tensors -> what a step reports, the loss first
Losses = Callable[..., Sequence[Tensor]]


class LossAndGradient:
    """``losses(*batch)``, a loss and what else is reported, and the gradient of the loss in ``parameters``.

    ``modules`` are those whose buffers the losses read; ``clip`` is the largest norm that the gradient may have.
    Parameters that the loss does not depend on have no gradient, and are left out of ``parameters``.
    """

    def __init__(
        self,
        losses: Losses,
        modules: Iterable[nn.Module],
        parameters: Iterable[nn.Parameter],
        clip: float | None = None,
    ) -> None:
        self.losses, self.modules, self.clip = losses, list(modules), clip
        self.parameters = [parameter for parameter in dict.fromkeys(parameters) if parameter.requires_grad]

    def __call__(self, *batch: Tensor) -> list[Tensor]:
        """The losses, detached, then the gradients."""
        with torch.enable_grad():
            losses = self.losses(*batch)
            found = torch.autograd.grad(losses[0], self.parameters, allow_unused=True)
        self.parameters = [p for p, g in zip(self.parameters, found, strict=True) if g is not None]
        gradients = [gradient for gradient in found if gradient is not None]
        return [*(loss.detach() for loss in losses), *clipped(gradients, self.clip)]

    def held(self) -> list[Tensor]:
        """The tensors whose numbers a step reads, and which stay in their place."""
        tensors = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in self.modules)
        return list(dict.fromkeys(chain(tensors, self.parameters)))

    def record(self, batch: Sequence[Tensor]) -> Recording:
        """Run once, through Pyro's handlers, and write the operators down; the buffers are left as they were.

        Raises :class:`~probvae.errors.TraceError` where the structure may depend on data.
        """
        with self.kept_buffers(), numbers_unread():
            return record(self, batch, self.held())

    def kept_buffers(self) -> AbstractContextManager[None]:
        """What the losses change in place is put back: batch normalisation's running means."""
        return restored(chain.from_iterable(module.buffers() for module in self.modules))


def clipped(gradients: Sequence[Tensor], limit: float | None) -> Sequence[Tensor]:
    """The gradients, scaled down where their norm is above ``limit``: ``torch.nn.utils.clip_grad_norm_``'s formula."""
    if limit is None:
        return gradients
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    return [gradient * factor for gradient in gradients]


@contextmanager
def numbers_unread() -> Iterator[None]:
    """Pyro's losses, while they are written down, look at no number: no NaN check, no validation, no ``.item()``."""
    with ExitStack() as stack:
        stack.enter_context(pyro.validation_enabled(False))
        for name in ("trace_elbo", "trace_mean_field_elbo", "renyi_elbo", "tracegraph_elbo", "traceenum_elbo"):
            module = getattr(pyro.infer, name)
            for function, instead in {"torch_item": _detached, "warn_if_nan": _as_it_is}.items():
                if hasattr(module, function):
                    stack.callback(setattr, module, function, getattr(module, function))
                    setattr(module, function, instead)
        yield


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _as_it_is(value: Any, *args: Any, **kwargs: Any) -> Any:
    return value
