"""The importance-weighted bound with a guide's gradient that does not fade."""

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor

from probvae.inference.densities.traces import LogWeights, PyroProgram, weights_of
from probvae.inference.objectives.base import Weight, latent_sites, tempered
from probvae.inference.objectives.iwae import IWAEObjective
from probvae.inference.objectives.sticking_the_landing import path_traces


class DReGObjective(IWAEObjective, name="dreg"):
    r"""The importance-weighted bound with the doubly reparameterised gradient.

    .. math:: \nabla_\phi \hat L_K = \sum_k \bar w_k^2\, \frac{\partial \log w_k}{\partial z_k}
              \frac{\partial z_k}{\partial \phi}, \qquad
              \nabla_\theta \hat L_K = \sum_k \bar w_k\, \nabla_\theta \log w_k

    The value is that of ``iwae``. The guide's gradient has the same mean, and a signal that grows as sqrt(K) instead of
    fading; for K = 1 it is that of ``stl``. The guide must be an ``nn.Module`` with reparameterised sites.

    Raises :class:`~probvae.errors.ArgumentError` for another guide.
    Source: Tucker, Lawson, Gu and Maddison (2019), arXiv:1810.04152, equation 8.

    >>> DReGObjective(num_particles=10).num_particles
    10
    """

    def _evaluate(
        self, model: PyroProgram, guide: PyroProgram, x: Tensor, kl_weight: Weight
    ) -> tuple[Tensor, LogWeights]:
        model_trace, guide_trace = path_traces(model, guide, x, self.num_particles, "dreg")
        weights = weights_of(model_trace, guide_trace, (self.num_particles, len(x)))
        log_weight = tempered(weights, self.beta * kl_weight)
        share = log_weight.detach().softmax(0)
        _weight_gradients(guide_trace, share)
        bound = torch.logsumexp(log_weight.detach(), 0) - math.log(self.num_particles)
        surrogate = (share * log_weight).sum(0)
        value = bound + surrogate - surrogate.detach()
        return self.without_free_bits(value, model_trace, guide_trace, self.beta * kl_weight), weights


def _weight_gradients(guide_trace: Trace, share: Tensor) -> None:
    """The gradient of the guide passes through z, and takes the weight a second time on its way."""
    for name in latent_sites(guide_trace):
        z: Any = guide_trace.nodes[name]["value"]
        if z.requires_grad:
            z.register_hook(_times(share))


def _times(share: Tensor) -> Callable[[Tensor], Tensor]:
    def multiplied(gradient: Tensor) -> Tensor:
        return gradient * share.reshape(share.shape + (1,) * (gradient.ndim - share.ndim))

    return multiplied
