"""A prior with heavy tails."""

from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.foundation.checks import check_count, check_positive
from probvae.models.priors.base import Prior
from probvae.models.stable_densities import StableStudentT


class StudentTPrior(Prior, name="student-t"):
    r"""Independent Student t in every dimension, p(z) = prod_i t_nu(z_i / s) / s: room for unusual data.

    .. math:: p(z_i) = \frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac{\nu}{2}) \sqrt{\nu \pi}\, s}
              \Big( 1 + \frac{z_i^2}{\nu s^2} \Big)^{-\frac{\nu + 1}{2}}

    Parameters: ``degrees`` nu and ``scale`` s (**not** the standard deviation, which is s sqrt(nu / (nu - 2)) for nu
    above 2), fixed, in the units of z. The dimensions are independent: it is not the multivariate t.
    Raises :class:`~probvae.errors.ArgumentError` for a number that is not positive.
    Source: Student (1908), "The Probable Error of a Mean".

    >>> StudentTPrior(latent_dim=2)().event_shape
    torch.Size([2])
    """

    loc: Tensor

    def __init__(self, latent_dim: int, degrees: float = 5.0, scale: float = 1.0) -> None:
        super().__init__()
        check_count(latent_dim, "latent_dim")
        check_positive(degrees, "degrees")
        check_positive(scale, "scale")
        self.latent_dim, self.degrees, self.scale = latent_dim, degrees, scale
        # The buffer makes the prior follow .to(device) and .double()
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        return StableStudentT(self.degrees, self.loc, torch.full_like(self.loc, self.scale)).to_event(1)

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, degrees=6.0, scale=0.7)
