"""A prior with bounds."""

from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.foundation.checks import check_count
from probvae.models.priors.base import Prior


class UniformHypercubePrior(Prior, name="uniform-hypercube"):
    r"""Uniform on a cube, p(z) = (high - low)^-d for z in [low, high]^d.

    The guide must stay in the cube: :class:`~probvae.inference.ConstrainedGuide` puts any guide there (the command line
    and recipes do it by themselves).

    Parameters: ``low`` and ``high``, the same for all dimensions, in the units of z.
    Raises :class:`~probvae.errors.ArgumentError` unless low < high.
    Source: Davidson et al. (2018), arXiv:1804.00891, section 2 (priors on compact spaces).

    >>> UniformHypercubePrior(latent_dim=2)().log_prob(torch.zeros(2)).exp()
    tensor(0.2500)
    """

    lowest: Tensor

    def __init__(self, latent_dim: int, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()
        check_count(latent_dim, "latent_dim")
        if not low < high:
            raise ArgumentError(f"high: expected more than low={low!r}, got {high!r}.")
        self.latent_dim, self.low, self.high = latent_dim, float(low), float(high)
        # The buffer makes the prior follow .to(device) and .double()
        self.register_buffer("lowest", torch.full((latent_dim,), self.low), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        return dist.Uniform(torch.full_like(self.lowest, self.low), torch.full_like(self.lowest, self.high)).to_event(1)

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, low=-0.5, high=1.5)
