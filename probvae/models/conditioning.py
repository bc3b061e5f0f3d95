"""The parts of a conditional model once y is given: ordinary ones, which share their weights with it."""

from typing import Protocol, Self, cast

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from probvae.errors import ConfigError
from probvae.models.priors import Prior


class CovariatePrior(Protocol):
    """What a prior with ``num_covariates`` is to this package."""

    def given(self, y: Tensor) -> TorchDistribution:
        """p(z|y) for each row of ``y`` (N, C)."""


class GivenDecoder(nn.Module):
    """z -> decoder([z, y]), for y with one row for each of N data, or one row for all: (N or 1, C)."""

    def __init__(self, decoder: nn.Module, y: Tensor) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("y", y, persistent=False)

    y: Tensor

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(joined(z, self.y))


class GivenPrior(Prior):
    """p(z|y) for a prior with covariates."""

    def __init__(self, prior: Prior, y: Tensor) -> None:
        super().__init__()
        self.prior, self.latent_dim = prior, prior.latent_dim
        self.register_buffer("y", y, persistent=False)

    y: Tensor

    def forward(self) -> TorchDistribution:
        return cast(CovariatePrior, self.prior).given(self.y)

    @classmethod
    def example(cls) -> Self:
        raise ConfigError("GivenPrior: made by model.given(y), not by itself.")


def joined(values: Tensor, y: Tensor) -> Tensor:
    """[values, y] (..., P + C) for ``values`` (..., P) and ``y`` (N or 1, C)."""
    rows = y[0] if len(y) == 1 else y
    return torch.cat([values, rows.to(values.dtype).expand(*values.shape[:-1], y.shape[-1])], dim=-1)
