"""The contract of a likelihood."""

from abc import ABC, abstractmethod
from typing import Self

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from probvae._registry import Registered
from probvae._shapes import check_count, check_event


class Likelihood(nn.Module, Registered, ABC, family="likelihood"):
    """p(x|z) for x in the likelihood's support, from the numbers that the decoder gives.

    The distribution has batch_shape ``(N,)`` and event_shape ``(data_dim,)``. It takes ``num_outputs`` numbers
    from the decoder for each datum.
    """

    data_dim: int

    def __init__(self, data_dim: int) -> None:
        super().__init__()
        check_count(data_dim, "data_dim")
        self.data_dim = data_dim

    @property
    def num_outputs(self) -> int:
        """How many numbers a datum the decoder has to give."""
        return self.data_dim

    def forward(self, parameters: Tensor) -> TorchDistribution:
        """p(x|z) from the decoder's output ``parameters`` (..., num_outputs)."""
        fix = f"Build the decoder with num_outputs={self.num_outputs}."
        check_event(parameters, self.num_outputs, "the decoder's output", fix)
        return self.distribution(parameters)

    @abstractmethod
    def distribution(self, parameters: Tensor) -> TorchDistribution:
        """Build p(x|z); ``parameters`` has its checked trailing shape."""

    @abstractmethod
    def check_support(self, x: Tensor) -> None:
        """Raise :class:`~probvae.errors.SupportError` when the data ``x`` (N, D) lie outside the support."""

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance (data_dim 3), used by the contract tests."""
