"""The evidence lower bound with the path-derivative gradient."""

from typing import Any

import pyro
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.func import functional_call

from probvae.errors import ArgumentError
from probvae.inference.densities.traces import LogWeights, PyroProgram, paired_traces
from probvae.inference.objectives.base import DrawnObjective, Weight, check_reparameterised, tempered


class STLObjective(DrawnObjective, name="stl"):
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

    def value(self, weights: LogWeights, weight: Weight) -> Tensor:
        return tempered(weights, weight).mean(0)

    def traces(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> tuple[Trace, Trace]:
        return path_traces(model, guide, x, self.num_particles, "stl")


def path_traces(
    model: PyroProgram, guide: PyroProgram, x: Tensor, num_particles: int, objective: str
) -> tuple[Trace, Trace]:
    """Traces for ``x`` (N, D), the guide's with its density at fixed parameters: gradients go through draws alone."""
    model_trace, guide_trace = paired_traces(model, guide, x, num_particles)
    check_reparameterised(guide_trace, objective)
    return model_trace, at_fixed_parameters(guide, guide_trace, x, num_particles, objective)


def at_fixed_parameters(guide: PyroProgram, guide_trace: Trace, x: Tensor, num_particles: int, objective: str) -> Trace:
    """The guide for ``x`` (N, D), replayed at the drawn values, its parameters detached."""
    if not isinstance(guide, nn.Module):
        raise ArgumentError(
            f"{objective}: expected a guide that is an nn.Module, got {type(guide).__name__}, whose parameters cannot "
            "be found. Put it into a module's forward, or use objective='elbo'."
        )
    parameters = {name: parameter.detach() for name, parameter in guide.named_parameters()}

    def detached(*args: Any) -> Any:
        return functional_call(guide, parameters, args)

    with pyro.plate("samples", num_particles, dim=-2):
        return poutine.trace(poutine.replay(detached, trace=guide_trace)).get_trace(x)
