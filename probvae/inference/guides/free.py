"""A guide that is not amortised: one normal distribution for each of the data it was made for."""

from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.inference.guides.base import Guide


class FreeGuide(Guide):
    r"""q_n(z) = N(m_n, L_n L_n^T) for the n-th of a given set of data.

    ``x`` (N, D) are the data, ``loc`` (N, d) the means, ``scale_tril`` (N, d, d) the Cholesky factors (diagonal ones
    make a diagonal guide), in the units of z. What is not among the data has no distribution: an error.
    Source: Hoffman et al. (2013), "Stochastic Variational Inference", the local parameters.

    >>> guide = FreeGuide(torch.zeros(4, 3), torch.ones(4, 2), torch.eye(2).expand(4, 2, 2))
    >>> guide.distribution(torch.zeros(4, 3)).mean.shape
    torch.Size([4, 2])
    """

    x: Tensor

    def __init__(self, x: Tensor, loc: Tensor, scale_tril: Tensor) -> None:
        super().__init__(loc.shape[-1])
        self.register_buffer("x", x)
        self.loc = torch.nn.Parameter(loc.detach().clone())
        self.scale_tril = torch.nn.Parameter(scale_tril.detach().clone())

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        if x.shape != self.x.shape or not torch.equal(x, self.x):
            raise ArgumentError(
                f"x: this guide has one distribution for each of the {len(self.x)} data it was made for, and got "
                f"others, of shape {tuple(x.shape)}. Refine the VAE for these data."
            )
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril.tril())

    @classmethod
    def example(cls) -> Self:
        return cls(torch.zeros(4, 3), torch.zeros(4, 2), torch.eye(2).expand(4, 2, 2))
