"""The importance-weighted bound."""

import math

import torch
from pyro.poutine import Trace
from torch import Tensor

from probvae.inference.densities.traces import LogWeights, PyroProgram, paired_traces
from probvae.inference.objectives.base import DrawnObjective, Weight, check_reparameterised, tempered


class IWAEObjective(DrawnObjective, name="iwae"):
    r"""The importance-weighted bound of K particles, for each datum.

    .. math:: L_K(x) = E_{z_1 \dots z_K \sim q_x} \log \frac1K \sum_{k=1}^K
              \Big[ w_k = \frac{p(x|z_k)\, p(z_k)}{q_x(z_k)} \Big], \qquad
              \mathrm{ELBO} = L_1 \le L_K \le \log p(x)

    It is tighter with K; the signal of the *guide's* gradient falls as 1/sqrt(K) (Rainforth et al. 2018): see
    ``dreg``. With ``beta`` the weights are p(x|z) (p(z) / q(z))^beta, which is no bound for beta < 1.
    The guide's draws must be reparameterised.

    Raises :class:`~probvae.errors.ArgumentError` for a guide whose draws are not.
    Source: Burda, Grosse and Salakhutdinov (2016), arXiv:1509.00519, equation 8.

    >>> IWAEObjective(num_particles=10).num_particles
    10
    """

    def __init__(self, num_particles: int = 5, beta: float = 1.0, free_bits: float = 0.0) -> None:
        super().__init__(num_particles, beta, free_bits)

    def value(self, weights: LogWeights, weight: Weight) -> Tensor:
        return torch.logsumexp(tempered(weights, weight), 0) - math.log(self.num_particles)

    def traces(self, model: PyroProgram, guide: PyroProgram, x: Tensor) -> tuple[Trace, Trace]:
        model_trace, guide_trace = paired_traces(model, guide, x, self.num_particles)
        if torch.is_grad_enabled():  # the value needs no reparameterisation
            check_reparameterised(guide_trace, str(self.registered_name))
        return model_trace, guide_trace
