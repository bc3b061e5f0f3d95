"""Run a model against its guide and keep the terms of log w apart, per draw and per datum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Distribution

from probvae.models import LatentModel

PyroProgram = Callable[..., Any]


class LogWeights(NamedTuple):
    """The terms of log w = log p(x|z) + log p(z) - log q_x(z), each (S, N), in nats."""

    log_likelihood: Tensor
    log_prior: Tensor
    log_guide: Tensor

    @property
    def log_weight(self) -> Tensor:
        """log w (S, N)."""
        return self.log_likelihood + self.log_prior - self.log_guide


def paired_traces(model: PyroProgram, guide: PyroProgram, x: Tensor, num_samples: int) -> tuple[Trace, Trace]:
    """Traces of the guide for ``x`` (N, D), and of the model replayed; ``num_samples`` is a plate at dim -2."""
    with pyro.plate("samples", num_samples, dim=-2):
        guide_trace = poutine.trace(guide).get_trace(x)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
    return model_trace, guide_trace


def log_weights(model: PyroProgram, guide: PyroProgram, x: Tensor, num_samples: int = 1) -> LogWeights:
    """The log importance weights' terms for ``num_samples`` draws of z for each datum of ``x`` (N, D).

    Works for any Pyro program whose latent sites stand in one data plate at dim -1.
    """
    model_trace, guide_trace = paired_traces(model, guide, x, num_samples)
    return weights_of(model_trace, guide_trace, (num_samples, x.shape[0]))


def weight_terms(model: LatentModel, x: Tensor, z: Tensor, prior: Distribution, q: Distribution) -> LogWeights:
    """The same terms (S, N) at ``z`` (S, N, d) for ``x`` (N, D), from distributions and not through Pyro's handlers.

    ``prior`` is p(z) and ``q`` is q_x(z), which an evaluation in blocks makes once.
    """
    log_likelihood = model.likelihood(model.decode(z)).log_prob(x)
    return LogWeights(log_likelihood, prior.log_prob(z), q.log_prob(z))


def weights_of(model_trace: Trace, guide_trace: Trace, shape: tuple[int, int]) -> LogWeights:
    """Sum the traces' log densities by role; each result has ``shape`` (S, N)."""
    model_trace.compute_log_prob()
    guide_trace.compute_log_prob()
    return LogWeights(
        _sum_sites(model_trace, shape, observed=True),
        _sum_sites(model_trace, shape, observed=False),
        _sum_sites(guide_trace, shape, observed=False),
    )


def _sum_sites(trace: Trace, shape: tuple[int, int], *, observed: bool) -> Tensor:
    sites = [
        site["log_prob"].expand(shape)
        for site in trace.nodes.values()
        if site["type"] == "sample" and site["is_observed"] is observed and not poutine.util.site_is_subsample(site)
    ]
    total: Tensor = sum(sites[1:], start=sites[0])
    return total
