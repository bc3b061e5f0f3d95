"""The importance-weighted bound with a guide's gradient that does not fade."""

import math
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from probvae.inference.densities.traces import LogWeights, PyroProgram, weights_of
from probvae.inference.objectives.base import Weight, check_reparameterised, latent_sites, tempered
from probvae.inference.objectives.iwae import IWAEObjective
from probvae.inference.objectives.sticking_the_landing import at_fixed_parameters


class DReGObjective(IWAEObjective, name="dreg"):
    r"""The importance-weighted bound with the doubly reparameterised gradient.

    .. math:: \nabla_\phi \hat L_K = \sum_k \big[ (1 - \beta)\, \bar w_k + \beta\, \bar w_k^2 \big]\,
              \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}, \qquad
              \nabla_\theta \hat L_K = \sum_k \bar w_k\, \nabla_\theta \log w_k

    with w_k = p(x|z_k) (p(z_k) / q(z_k))^beta and beta the KL's weight at this step; for beta = 1 the paper's w_k^2.

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
        weight, factor = self.beta * kl_weight, _Factor()
        drawn, model_trace, guide_trace = _hooked_traces(model, guide, x, self.num_particles, factor)
        weights = weights_of(model_trace, guide_trace, (self.num_particles, len(x)))
        log_weight = tempered(weights, weight)
        share = log_weight.detach().softmax(0)
        factor.value = (1 - weight) + weight * share
        bound = torch.logsumexp(log_weight.detach(), 0) - math.log(self.num_particles)
        surrogate = (share * log_weight).sum(0)
        value = bound + surrogate - surrogate.detach()
        if not self.free_bits:
            return value, weights
        # The free bits weight the KL itself, whose gradient must not pass through the hooks.
        with pyro.plate("samples", self.num_particles, dim=-2):
            plain_trace = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x)
        return self.without_free_bits(value, plain_trace, drawn, weight), weights


class _Factor:
    """The factor (K, N) of the guide's gradient on its way through z; the forward pass sets it."""

    value: Tensor

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient * self.value.reshape(self.value.shape + (1,) * (gradient.ndim - self.value.ndim))


def _hooked_traces(
    model: PyroProgram, guide: PyroProgram, x: Tensor, num_particles: int, factor: _Factor
) -> tuple[Trace, Trace, Trace]:
    """The guide's trace as it was drawn; the model's, and the guide's at fixed parameters, at z behind the hooks."""
    with pyro.plate("samples", num_particles, dim=-2):
        drawn = poutine.trace(guide).get_trace(x)
        check_reparameterised(drawn, "dreg")
        hooked = drawn.copy()
        for name in latent_sites(hooked):
            site: Any = hooked.nodes[name]
            z = site["value"].view_as(site["value"])
            if z.requires_grad:
                z.register_hook(factor)
            site = site.copy()
            site["value"] = z
            hooked.nodes[name] = site
        model_trace = poutine.trace(poutine.replay(model, trace=hooked)).get_trace(x)
    return drawn, model_trace, at_fixed_parameters(guide, hooked, x, num_particles, "dreg")
