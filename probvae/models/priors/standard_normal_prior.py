"""The prior of the derivation."""

from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.foundation.checks import check_count
from probvae.models.priors.base import Prior


class StandardNormalPrior(Prior, name="standard-normal"):
    r"""Standard normal, p(z) = N(0, I).

    .. math:: \log p(z) = -\tfrac12 \lVert z \rVert^2 - \tfrac{d}{2} \log 2\pi

    Parameters: none. Units: z is measured in standard deviations of the prior.
    Raises :class:`~probvae.errors.ArgumentError` when ``latent_dim`` is not an integer of at least one.
    Source: Kingma and Welling (2014), arXiv:1312.6114; Rocca (2019), "Understanding Variational Autoencoders".

    >>> StandardNormalPrior(latent_dim=2)().event_shape
    torch.Size([2])
    """

    loc: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        check_count(latent_dim, "latent_dim")
        self.latent_dim = latent_dim
        # The buffer makes the prior follow .to(device) and .double()
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2)
