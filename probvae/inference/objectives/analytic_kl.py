"""The evidence lower bound with its KL in closed form."""

from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor

from probvae.inference.densities.kl import analytic_kl
from probvae.inference.densities.traces import PyroProgram, paired_traces, weights_of
from probvae.inference.objectives._pyro import TraceMeanFieldELBO, pyro_step, trace_kl
from probvae.inference.objectives.base import KLGroup, Objective, StepLoss, Weight, below, factorises, latent_sites


class AnalyticKLObjective(Objective, name="analytic-kl"):
    r"""The evidence lower bound with its KL in closed form: Pyro's ``TraceMeanField_ELBO``.

    .. math:: \mathrm{ELBO}(x) = E_{z \sim q_x} [\log p(x|z)] - \mathrm{KL}(q_x \| p(z))

    Raises :class:`~probvae.errors.ArgumentError` where the KL has no closed form (Pyro would estimate it silently).
    Source: Kingma and Welling (2014), arXiv:1312.6114, equation 8 (estimator B).

    >>> AnalyticKLObjective().num_particles
    1
    """

    def __call__(self, model: PyroProgram, guide: PyroProgram, x: Tensor, kl_weight: Weight = 1.0) -> Tensor:
        log_likelihood, kl, excess = self._parts(model, guide, x)
        weight = self.beta * kl_weight
        return log_likelihood - weight * kl - (weight * excess if self.free_bits else 0.0)

    def step_loss(self, model: PyroProgram, guide: PyroProgram, x: Tensor, kl_weight: Weight = 1.0) -> StepLoss:
        weight = self.beta * kl_weight
        if not self.free_bits:
            return pyro_step(TraceMeanFieldELBO, self.num_particles, model, guide, x, weight)
        log_likelihood, kl, excess = self._parts(model, guide, x)
        value = (log_likelihood - weight * kl).mean() - weight * excess
        return StepLoss(-value, kl.mean().detach(), (log_likelihood - kl).mean().detach())

    def _parts(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E log p(x|z) (N,), KL (N,), and what free bits add to its mean."""
        shape = (self.num_particles, len(x))
        model_trace, guide_trace = paired_traces(model, guide, x, self.num_particles)
        weights, kl = weights_of(model_trace, guide_trace, shape), trace_kl(model_trace, guide_trace)
        excess = below(_kl_groups(model_trace, guide_trace), self.free_bits)
        return weights.log_likelihood.mean(0), kl.expand(shape).mean(0), excess


def _kl_groups(model_trace: Trace, guide_trace: Trace) -> list[KLGroup]:
    """The closed form a dimension at a time, where both factorise."""
    groups = []
    for name in latent_sites(guide_trace):
        q: Any = guide_trace.nodes[name]["fn"]
        p: Any = model_trace.nodes[name]["fn"]
        if factorises(q) and factorises(p):
            kl = analytic_kl(q.base_dist, p.base_dist)
            groups.append(KLGroup(kl.flatten(0, -2).mean(0), 1))
        else:
            groups.append(KLGroup(analytic_kl(q, p).mean(), torch.Size(q.event_shape).numel()))
    return groups
