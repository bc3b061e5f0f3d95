"""Pyro's own loss classes, told what is known already and asked what a step reports."""

from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor

from probvae.foundation.pyro_internals import LatentScale, SeeingTraceELBO, SeeingTraceMeanFieldELBO
from probvae.inference.densities.kl import analytic_kl
from probvae.inference.densities.traces import PyroProgram
from probvae.inference.objectives.base import StepLoss, Weight, latent_sites


class TraceELBO(SeeingTraceELBO):
    """Pyro's loss, which also remembers the parts of the traces it has just used, at the KL's weight one."""

    kl: Tensor
    log_likelihood: Tensor

    def see(self, model_trace: Trace, guide_trace: Trace) -> None:
        """Note the KL and the log likelihood, scalars ()."""
        sites = [(guide_trace.nodes[n], model_trace.nodes[n]) for n in latent_sites(guide_trace)]
        terms = [((q["log_prob_sum"] - p["log_prob_sum"]) / q["scale"]).detach() for q, p in sites]
        self.kl = torch.stack(terms).sum()
        self.log_likelihood = _observed(model_trace)


class TraceMeanFieldELBO(SeeingTraceMeanFieldELBO):
    """The same for the loss with an analytic KL, which must have a closed form."""

    kl: Tensor
    log_likelihood: Tensor

    def see(self, model_trace: Trace, guide_trace: Trace) -> None:
        """Note the KL and the log likelihood, scalars ()."""
        self.kl = trace_kl(model_trace, guide_trace).detach().sum()
        self.log_likelihood = _observed(model_trace)


def pyro_step(
    loss_class: type[TraceELBO] | type[TraceMeanFieldELBO],
    num_particles: int,
    model: PyroProgram,
    guide: PyroProgram,
    x: Tensor,
    weight: Weight,
) -> StepLoss:
    """One step by Pyro's loss at ``x`` (N, D), with the KL weighted; scalars."""
    # max_plate_nesting is told, or Pyro would run model and guide once more at every step to find it out
    loss = loss_class(num_particles=num_particles, vectorize_particles=num_particles > 1, max_plate_nesting=1)
    if isinstance(weight, Tensor) or weight != 1.0:
        model, guide = LatentScale(weight)(model), LatentScale(weight)(guide)
    value = loss.differentiable_loss(model, guide, x)
    kl, log_likelihood = (part / (num_particles * len(x)) for part in (loss.kl, loss.log_likelihood))
    return StepLoss(value / len(x), kl, log_likelihood - kl)


def _observed(model_trace: Trace) -> Tensor:
    sites: Any = [site for site in model_trace.nodes.values() if site["type"] == "sample" and site["is_observed"]]
    return torch.stack([site["log_prob_sum"].detach() for site in sites]).sum()


def trace_kl(model_trace: Trace, guide_trace: Trace) -> Tensor:
    """KL in closed form, a scalar, summed over the latent sites and the data."""
    pairs: list[tuple[Any, Any]] = [
        (guide_trace.nodes[n]["fn"], model_trace.nodes[n]["fn"]) for n in latent_sites(guide_trace)
    ]
    return torch.stack([analytic_kl(q, p) for q, p in pairs]).sum(0)
