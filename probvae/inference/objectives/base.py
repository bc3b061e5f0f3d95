"""The contract of an objective, and the options that hold for all: particles, the KL's weight, free bits."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import torch
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution, Independent

from probvae.errors import ArgumentError
from probvae.foundation.checks import check_count, check_positive
from probvae.foundation.registry import Registered
from probvae.inference.densities.traces import LogWeights, PyroProgram, paired_traces, weights_of

Weight = float | Tensor


class StepLoss(NamedTuple):
    """The scalars of one training step, in nats per datum: the loss to differentiate, and what the step reports.

    ``elbo`` is the plain one-draw ELBO, which is the negative loss only where nothing is weighted.
    """

    loss: Tensor
    kl: Tensor
    elbo: Tensor


class Objective(Registered, ABC, family="objective"):
    """A lower bound of log p(x), or another quantity to maximise, in nats per datum; larger is better.

    ``beta`` weights the KL (see :func:`~probvae.inference.equivalent_variance` for what that means); ``kl_weight``
    multiplies it at one step (KL warm-up). ``free_bits`` is the number of nats a latent dimension that cost nothing:
    a KL below it, averaged over the minibatch, has no gradient. Each dimension is for itself where prior and guide
    factorise over them; elsewhere they share d times as many nats. ``is_mean_over_data`` says whether, free bits
    apart, a minibatch's loss is the mean of its data's own: then several processes can share it.
    Source: Higgins et al. (2017), "beta-VAE"; Kingma et al. (2016), arXiv:1606.04934, equation 15 (free bits).
    """

    num_particles: int
    beta: float
    free_bits: float
    is_mean_over_data = True

    def __init__(self, num_particles: int = 1, beta: float = 1.0, free_bits: float = 0.0) -> None:
        check_count(num_particles, "num_particles")
        check_positive(beta, "beta")
        if isinstance(free_bits, bool) or not isinstance(free_bits, int | float) or not 0 <= free_bits < float("inf"):
            raise ArgumentError(f"free_bits: expected nats >= 0, got {free_bits!r}.")
        self.num_particles, self.beta, self.free_bits = num_particles, beta, free_bits

    @abstractmethod
    def __call__(self, model: PyroProgram, guide: PyroProgram, x: Tensor, kl_weight: Weight = 1.0) -> Tensor:
        """The objective (N,) for the data ``x`` (N, D), differentiable in all parameters."""

    @abstractmethod
    def step_loss(self, model: PyroProgram, guide: PyroProgram, x: Tensor, kl_weight: Weight = 1.0) -> StepLoss:
        """The negative objective averaged over ``x`` (N, D), and what a step reports; scalars."""

    @classmethod
    def example(cls) -> Self:
        """An instance for the contract tests."""
        return cls()


class DrawnObjective(Objective):
    """An objective that is a function of log w's terms at the guide's draws."""

    def __call__(self, model: PyroProgram, guide: PyroProgram, x: Tensor, kl_weight: Weight = 1.0) -> Tensor:
        return self._evaluate(model, guide, x, kl_weight)[0]

    def step_loss(self, model: PyroProgram, guide: PyroProgram, x: Tensor, kl_weight: Weight = 1.0) -> StepLoss:
        value, weights = self._evaluate(model, guide, x, kl_weight)
        kl = (weights.log_guide - weights.log_prior).mean().detach()
        return StepLoss(-value.mean(), kl, weights.log_likelihood.mean().detach() - kl)

    @abstractmethod
    def value(self, weights: LogWeights, weight: Weight) -> Tensor:
        """The objective (N,) from the terms of log w, each (K, N), and the KL's ``weight``."""

    def traces(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> tuple[Trace, Trace]:
        """Traces of model and guide at K draws for ``x`` (N, D), whose log densities have the objective's gradients."""
        return paired_traces(model, guide, x, self.num_particles)

    def _evaluate(
        self, model: PyroProgram, guide: PyroProgram, x: Tensor, kl_weight: Weight
    ) -> tuple[Tensor, LogWeights]:
        model_trace, guide_trace = self.traces(model, guide, x)
        weights = weights_of(model_trace, guide_trace, (self.num_particles, len(x)))
        value = self.value(weights, self.beta * kl_weight)
        return self.without_free_bits(value, model_trace, guide_trace, self.beta * kl_weight), weights

    def without_free_bits(self, value: Tensor, model_trace: Trace, guide_trace: Trace, weight: Weight) -> Tensor:
        """The ``value`` (N,) less what free bits add to the KL of this minibatch, sum_j max(lambda - KL_j, 0)."""
        if not self.free_bits:
            return value
        return value - weight * below(drawn_kl_groups(model_trace, guide_trace), self.free_bits)


class KLGroup(NamedTuple):
    """A KL averaged over draws and data for each of some groups (G,), each of ``size`` latent dimensions."""

    kl: Tensor
    size: int


def below(groups: list[KLGroup], free_bits: float) -> Tensor:
    """sum_j max(lambda - KL_j, 0), a scalar, with lambda = ``free_bits`` a dimension."""
    return torch.stack([(free_bits * group.size - group.kl).clamp(min=0).sum() for group in groups]).sum()


def drawn_kl_groups(model_trace: Trace, guide_trace: Trace) -> list[KLGroup]:
    """log q(z) - log p(z) at the draws, a dimension at a time where both factorise."""
    groups = []
    for name in latent_sites(guide_trace):
        site: Any = guide_trace.nodes[name]
        z, q = site["value"], site["fn"]
        p: Any = model_trace.nodes[name]["fn"]
        if factorises(q) and factorises(p):
            log_ratio = q.base_dist.log_prob(z) - p.base_dist.log_prob(z)
            groups.append(KLGroup(log_ratio.flatten(0, -2).mean(0), 1))
        else:
            groups.append(KLGroup((q.log_prob(z) - p.log_prob(z)).mean(), q.event_shape.numel()))
    return groups


def factorises(p: Distribution) -> bool:
    """True where the dimensions of an event are independent, and known one by one."""
    return isinstance(p, Independent) and p.reinterpreted_batch_ndims == 1 and not p.base_dist.event_shape


def latent_sites(guide_trace: Trace) -> list[str]:
    """The names of the sites that the guide draws; plates are sites too, and are left out."""
    sites = guide_trace.nodes.items()
    return [name for name, site in sites if site["type"] == "sample" and not site_is_subsample(site)]


def check_reparameterised(guide_trace: Trace, objective: str, instead: str = "objective='elbo'") -> None:
    """Raise unless every site of the guide has draws that can be differentiated."""
    for name in latent_sites(guide_trace):
        distribution: Any = guide_trace.nodes[name]["fn"]
        if not distribution.has_rsample:
            raise ArgumentError(
                f"{objective}: expected reparameterised sites, and the guide's site {name!r} "
                f"({type(distribution).__name__}) is not. Use {instead}."
            )


def tempered(weights: LogWeights, weight: Weight) -> Tensor:
    """log p(x|z) - weight (log q(z) - log p(z)), (K, N): log w for a weight of one."""
    if isinstance(weight, float) and weight == 1.0:
        return weights.log_weight
    return weights.log_likelihood - weight * (weights.log_guide - weights.log_prior)


def resolve_objective(objective: str | Objective) -> Objective:
    """An objective from its name, with default options; an object is handed back as it is."""
    return objective if isinstance(objective, Objective) else Objective.named(objective)()
