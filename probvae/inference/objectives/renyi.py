"""The variational Renyi bound."""

import math

import torch
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.inference.densities.traces import LogWeights
from probvae.inference.objectives.base import Weight, tempered
from probvae.inference.objectives.iwae import IWAEObjective


class RenyiObjective(IWAEObjective, name="renyi"):
    r"""The variational Renyi bound of order alpha, by K particles, for each datum.

    .. math:: L_\alpha(x) = \frac{1}{1 - \alpha} \log E_{z \sim q_x} \Big[ \Big(
              \frac{p(x|z)\, p(z)}{q_x(z)} \Big)^{1 - \alpha} \Big]

    ``alpha=0`` is the importance-weighted bound; the ELBO is the limit alpha -> 1; 0 < alpha < 1 lies between; for a
    negative alpha the exact value is an upper bound of log p(x), which K particles estimate from below.
    The expectation is inside the logarithm of each datum: Pyro's ``RenyiELBO`` is the same where every site stands
    in the plate of the data. The guide's draws must be reparameterised.

    Raises :class:`~probvae.errors.ArgumentError` for alpha = 1 and for a guide whose draws are not reparameterised.
    Source: Li and Turner (2016), arXiv:1602.02311, equation 5.

    >>> RenyiObjective(alpha=0.5).alpha
    0.5
    """

    def __init__(self, alpha: float = 0.5, num_particles: int = 5, beta: float = 1.0, free_bits: float = 0.0) -> None:
        super().__init__(num_particles, beta, free_bits)
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise ArgumentError(f"alpha: expected a finite number, got {alpha!r}.")
        if alpha == 1:
            raise ArgumentError("alpha: expected another order than 1, whose bound is the ELBO. Use objective='elbo'.")
        self.alpha = float(alpha)

    def value(self, weights: LogWeights, weight: Weight) -> Tensor:
        powers = (1 - self.alpha) * tempered(weights, weight)
        return (torch.logsumexp(powers, 0) - math.log(self.num_particles)) / (1 - self.alpha)
