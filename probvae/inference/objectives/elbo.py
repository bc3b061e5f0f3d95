"""The evidence lower bound by Monte Carlo."""

from pyro.poutine import Trace
from torch import Tensor

from probvae.inference.densities.traces import LogWeights, PyroProgram
from probvae.inference.objectives._pyro import TraceELBO, pyro_step
from probvae.inference.objectives.base import DrawnObjective, StepLoss, Weight, check_reparameterised, tempered


class ELBOObjective(DrawnObjective, name="elbo"):
    r"""The evidence lower bound by Monte Carlo: Pyro's ``Trace_ELBO``.

    .. math:: \mathrm{ELBO}(x) = E_{z \sim q_x} [\log p(x|z) + \log p(z) - \log q_x(z)] \le \log p(x)

    Source: Kingma and Welling (2014), arXiv:1312.6114, equation 7 (estimator A).

    >>> ELBOObjective(num_particles=4).num_particles
    4
    """

    def value(self, weights: LogWeights, weight: Weight) -> Tensor:
        return tempered(weights, weight).mean(0)

    def step_loss(self, model: PyroProgram, guide: PyroProgram, x: Tensor, kl_weight: Weight = 1.0) -> StepLoss:
        if not self.free_bits:
            return pyro_step(TraceELBO, self.num_particles, model, guide, x, self.beta * kl_weight)
        return super().step_loss(model, guide, x, kl_weight)

    def traces(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> tuple[Trace, Trace]:
        model_trace, guide_trace = super().traces(model, guide, x)
        if self.free_bits:
            # Pyro's loss knows no free bits; without it there is no score-function gradient
            check_reparameterised(guide_trace, "free_bits", "free_bits=0")
        return model_trace, guide_trace
