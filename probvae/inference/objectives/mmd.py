"""Maximum mean discrepancy in the place of the KL."""

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.foundation.checks import check_positive
from probvae.inference.densities.traces import PyroProgram, paired_traces, weights_of
from probvae.inference.objectives.base import Objective, StepLoss, Weight, check_reparameterised, latent_sites


class MMDObjective(Objective, name="mmd"):
    r"""**No bound of log p(x)**: the aggregate posterior is pulled to the prior, not each posterior (InfoVAE).

    .. math:: E_{z \sim q_x} [\log p(x|z)] - \beta s\, \mathrm{MMD}^2(q(z), p(z)), \qquad
              \mathrm{MMD}^2 = E[k(z, z')] + E[k(u, u')] - 2 E[k(z, u)], \quad z \sim q(z), u \sim p(z)

    with q(z) the mixture of q_x over the minibatch, and the kernel k(z, z') = exp(-|z - z'|^2 / (2 l^2)). It keeps
    latents in use that a KL would switch off; the guide's q_x is then *not* an approximation of p(z|x), which the gap
    shows. Pyro's ``Trace_MMD`` compares all data of a plate as one long vector; here each datum's z is a draw. For one
    datum both are the same.

    Parameters: ``mmd_scale`` s, in nats; ``length_scale`` l, in the units of z (sqrt(d) by default).
    Raises :class:`~probvae.errors.ArgumentError` for ``free_bits``, and for draws that are not reparameterised.
    Source: Zhao, Song and Ermon (2017), arXiv:1706.02262, section 4; Gretton et al. (2012) for the estimate.

    >>> MMDObjective(mmd_scale=500.0).num_particles
    1
    """

    is_mean_over_data = False

    def __init__(
        self,
        mmd_scale: float = 100.0,
        length_scale: float | None = None,
        num_particles: int = 1,
        beta: float = 1.0,
        free_bits: float = 0.0,
    ) -> None:
        super().__init__(num_particles, beta, free_bits)
        check_positive(mmd_scale, "mmd_scale")
        if length_scale is not None:
            check_positive(length_scale, "length_scale")
        if free_bits:
            raise ArgumentError("free_bits: mmd has no KL that they could spare. Use free_bits=0.")
        self.mmd_scale, self.length_scale = mmd_scale, length_scale

    def __call__(self, model: PyroProgram, guide: PyroProgram, x: Tensor, kl_weight: Weight = 1.0) -> Tensor:
        log_likelihood, penalty, _ = self._parts(model, guide, x)
        return log_likelihood - self.beta * kl_weight * penalty

    def step_loss(self, model: PyroProgram, guide: PyroProgram, x: Tensor, kl_weight: Weight = 1.0) -> StepLoss:
        log_likelihood, penalty, kl = self._parts(model, guide, x)
        loss = self.beta * kl_weight * penalty - log_likelihood.mean()
        return StepLoss(loss, kl, log_likelihood.mean().detach() - kl)

    def _parts(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E log p(x|z) (N,), the penalty of the minibatch, and its KL."""
        model_trace, guide_trace = paired_traces(model, guide, x, self.num_particles)
        check_reparameterised(guide_trace, "mmd")
        weights = weights_of(model_trace, guide_trace, (self.num_particles, len(x)))
        with pyro.plate("samples", self.num_particles, dim=-2):
            prior_trace = poutine.trace(model).get_trace(x)
        penalty = self.mmd_scale * self._discrepancy(guide_trace, prior_trace)
        return weights.log_likelihood.mean(0), penalty, (weights.log_guide - weights.log_prior).mean().detach()

    def _discrepancy(self, guide_trace: Trace, prior_trace: Trace) -> Tensor:
        sites = latent_sites(guide_trace)
        return squared_mmd(_draws(guide_trace, sites), _draws(prior_trace, sites), self.length_scale)


def _draws(trace: Trace, sites: list[str]) -> Tensor:
    """The values of the sites beside each other, (draws, d)."""
    values: list[Any] = [trace.nodes[name]["value"] for name in sites]
    return torch.cat([value.flatten(0, -2) for value in values], dim=-1)


def squared_mmd(z: Tensor, u: Tensor, length_scale: float | None = None) -> Tensor:
    """MMD^2 between draws ``z`` (N, d) and ``u`` (M, d): the V-statistic of the Gaussian kernel."""
    squared = length_scale**2 if length_scale is not None else float(z.shape[-1])

    def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
        distance = (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(-1)
        return torch.exp(-0.5 * distance / squared).mean()

    return mean_kernel(z, z) + mean_kernel(u, u) - 2 * mean_kernel(z, u)
