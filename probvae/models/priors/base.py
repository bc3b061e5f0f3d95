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
        """Build p(z), batch_shape () and event_shape (d,), from the current parameters."""

    def start_from(self, x: Tensor) -> Self:
        """Prepare a good start from the training data ``x`` (N, D), as the guide reads them; most priors need none."""
        return self

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance, used by the contract tests and the documentation."""
