"""A prior with a peak."""

from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.foundation.checks import check_count, check_positive
from probvae.models.priors.base import Prior


class LaplacePrior(Prior, name="laplace"):
    r"""Independent Laplace in every dimension, p(z) = prod_i exp(-|z_i| / s) / (2 s): latents that are often near zero.

    It is not invariant to rotations: the axes of z have a meaning of their own.

    Parameters: ``scale`` s (the standard deviation is s sqrt(2)), fixed, in the units of z.
    Raises :class:`~probvae.errors.ArgumentError` for a number that is not positive.
    Source: Olshausen and Field (1996), "Emergence of simple-cell receptive field properties by learning a sparse code".

    >>> LaplacePrior(latent_dim=2)().event_shape
    torch.Size([2])
    """

    loc: Tensor

    def __init__(self, latent_dim: int, scale: float = 1.0) -> None:
        super().__init__()
        check_count(latent_dim, "latent_dim")
        check_positive(scale, "scale")
        self.latent_dim, self.scale = latent_dim, scale
        # The buffer makes the prior follow .to(device) and .double()
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        return dist.Laplace(self.loc, torch.full_like(self.loc, self.scale)).to_event(1)

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, scale=0.7)
