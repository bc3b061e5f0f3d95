"""The contract of a prior."""

from abc import ABC, abstractmethod
from typing import Self

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from probvae.foundation.registry import Registered


class Prior(nn.Module, Registered, ABC, family="prior"):
    """p(z) for z in R^d. Calling it builds a distribution; it never returns a number.

    The distribution has batch_shape ``()`` and event_shape ``(latent_dim,)``.
    """

    latent_dim: int

    @abstractmethod
    def forward(self) -> TorchDistribution:
        """Build p(z) from the current parameters."""

    def start_from(self, x: Tensor) -> Self:
        """Take from the training data ``x`` (what the guide reads) what a good start needs; most need nothing."""
        return self

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance, used by the contract tests and the documentation."""
