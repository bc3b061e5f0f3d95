"""What a fit maximises. An objective is called with (model, guide, x) and gives (N,) nats per datum."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.func import functional_call

from probvae._registry import Registered
from probvae._shapes import check_count
from probvae.errors import ArgumentError
from probvae.inference.kl import analytic_kl
from probvae.inference.traces import LogWeights, PyroProgram, paired_traces, weights_of


class StepLoss(NamedTuple):
    """What one training step needs: the loss per datum to differentiate, and the KL per datum to report."""

    loss: Tensor
    kl: Tensor


class Objective(Registered, ABC, family="objective"):
    """A lower bound of log p(x), or another quantity to maximise, in nats per datum; larger is better."""

    num_particles: int

    def __init__(self, num_particles: int = 1) -> None:
        check_count(num_particles, "num_particles")
        self.num_particles = num_particles

    @abstractmethod
    def __call__(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> Tensor:
        """The objective (N,) for the data ``x`` (N, D), differentiable in all parameters."""

    @abstractmethod
    def step_loss(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> StepLoss:
        """The negative objective averaged over the data, as Pyro's own loss class computes it."""

    @classmethod
    def example(cls) -> Self:
        """An instance for the contract tests."""
        return cls()


class ELBOObjective(Objective, name="elbo"):
    r"""The evidence lower bound by Monte Carlo: Pyro's ``Trace_ELBO``.

    .. math:: \mathrm{ELBO}(x) = E_{z \sim q_x} [\log p(x|z) + \log p(z) - \log q_x(z)] \le \log p(x)

    Source: Kingma and Welling (2014), arXiv:1312.6114, equation 7 (estimator A).

    >>> ELBOObjective(num_particles=4).num_particles
    4
    """

    def __call__(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> Tensor:
        traces = paired_traces(model, guide, x, self.num_particles)
        return weights_of(*traces, (self.num_particles, len(x))).log_weight.mean(0)

    def step_loss(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> StepLoss:
        return _pyro_step(_TraceELBO, self.num_particles, model, guide, x)


class AnalyticKLObjective(Objective, name="analytic-kl"):
    r"""The evidence lower bound with its KL in closed form: Pyro's ``TraceMeanField_ELBO``.

    .. math:: \mathrm{ELBO}(x) = E_{z \sim q_x} [\log p(x|z)] - \mathrm{KL}(q_x \| p(z))

    Raises :class:`~probvae.errors.ArgumentError` where the KL has no closed form (Pyro would estimate it silently).
    Source: Kingma and Welling (2014), arXiv:1312.6114, equation 8 (estimator B).

    >>> AnalyticKLObjective().num_particles
    1
    """

    def __call__(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> Tensor:
        model_trace, guide_trace = paired_traces(model, guide, x, self.num_particles)
        weights = weights_of(model_trace, guide_trace, (self.num_particles, len(x)))
        return (weights.log_likelihood - _trace_kl(model_trace, guide_trace)).mean(0)

    def step_loss(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> StepLoss:
        return _pyro_step(_TraceMeanFieldELBO, self.num_particles, model, guide, x)


class STLObjective(Objective, name="stl"):
    r"""The evidence lower bound with the path-derivative gradient: "sticking the landing".

    .. math:: \nabla_\phi \widehat{\mathrm{ELBO}} = \nabla_\phi z_\phi(\zeta)^T\,
              \nabla_z [\log p(x, z) - \log q_x(z)], \qquad z = z_\phi(\zeta)

    The value is the ELBO's; from the gradient the score of q, whose mean is zero, is left out. At the exact posterior
    log p(x, z) - log q_x(z) does not depend on z, and the gradient is zero for every draw.
    The guide must be an ``nn.Module`` (so that its density can be taken at fixed parameters) whose sites are
    reparameterised.

    Raises :class:`~probvae.errors.ArgumentError` for another guide; use objective='elbo' for that.
    Source: Roeder, Wu and Duvenaud (2017), arXiv:1703.09194, equation 8.

    >>> STLObjective().num_particles
    1
    """

    def __call__(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> Tensor:
        return self._weights(model, guide, x).log_weight.mean(0)

    def step_loss(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> StepLoss:
        weights = self._weights(model, guide, x)
        kl = (weights.log_guide - weights.log_prior).mean().detach()
        return StepLoss(-weights.log_weight.mean(), kl)

    def _weights(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> LogWeights:
        model_trace, guide_trace = paired_traces(model, guide, x, self.num_particles)
        _check_reparameterised(guide_trace)
        fixed = _at_fixed_parameters(guide, guide_trace, x, self.num_particles)
        return weights_of(model_trace, fixed, (self.num_particles, len(x)))


def _at_fixed_parameters(guide: PyroProgram, guide_trace: Trace, x: Tensor, num_particles: int) -> Trace:
    """The guide replayed at the drawn values, its parameters detached: gradients go through the values alone."""
    if not isinstance(guide, nn.Module):
        raise ArgumentError(
            f"stl: expected a guide that is an nn.Module, got {type(guide).__name__}, whose parameters cannot be "
            "found. Put it into a module's forward, or use objective='elbo'."
        )
    parameters = {name: parameter.detach() for name, parameter in guide.named_parameters()}

    def detached(*args: Any) -> Any:
        return functional_call(guide, parameters, args)

    with pyro.plate("samples", num_particles, dim=-2):
        return poutine.trace(poutine.replay(detached, trace=guide_trace)).get_trace(x)


def _check_reparameterised(guide_trace: Trace) -> None:
    for name in _latent(guide_trace):
        distribution: Any = guide_trace.nodes[name]["fn"]
        if not distribution.has_rsample:
            raise ArgumentError(
                f"stl: expected reparameterised sites, and the guide's site {name!r} ({type(distribution).__name__}) "
                "is not. Use objective='elbo'."
            )


class _TraceELBO(Trace_ELBO):
    """Pyro's loss, which also remembers the KL of the traces it has just used."""

    kl: Tensor

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        model_trace, guide_trace = super()._get_trace(model, guide, args, kwargs)
        pairs = [
            (guide_trace.nodes[n]["log_prob_sum"], model_trace.nodes[n]["log_prob_sum"]) for n in _latent(guide_trace)
        ]
        self.kl = torch.stack([(log_q - log_p).detach() for log_q, log_p in pairs]).sum()
        return model_trace, guide_trace


class _TraceMeanFieldELBO(TraceMeanField_ELBO):
    """The same for the loss with an analytic KL, which must have a closed form."""

    kl: Tensor

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        traces: tuple[Trace, Trace] = super()._get_trace(model, guide, args, kwargs)
        self.kl = _trace_kl(*traces).detach().sum()
        return traces


def _pyro_step(
    loss_class: type[_TraceELBO] | type[_TraceMeanFieldELBO],
    num_particles: int,
    model: PyroProgram,
    guide: PyroProgram,
    x: Tensor,
) -> StepLoss:
    # max_plate_nesting is told, or Pyro would run model and guide once more at every step to find it out
    loss = loss_class(num_particles=num_particles, vectorize_particles=num_particles > 1, max_plate_nesting=1)
    value = loss.differentiable_loss(model, guide, x)
    return StepLoss(value / len(x), loss.kl / (num_particles * len(x)))


def _latent(guide_trace: Trace) -> list[str]:
    """The names of the sites that the guide draws; plates are sites too, and are left out."""
    sites = guide_trace.nodes.items()
    return [name for name, site in sites if site["type"] == "sample" and not site_is_subsample(site)]


def _trace_kl(model_trace: Trace, guide_trace: Trace) -> Tensor:
    """KL in closed form, summed over the latent sites."""
    pairs: list[tuple[Any, Any]] = [
        (guide_trace.nodes[n]["fn"], model_trace.nodes[n]["fn"]) for n in _latent(guide_trace)
    ]
    return torch.stack([analytic_kl(q, p) for q, p in pairs]).sum(0)


def resolve_objective(objective: "str | Objective") -> Objective:
    """An objective from its name, with default options; an object is handed back as it is."""
    return objective if isinstance(objective, Objective) else Objective.named(objective)()
