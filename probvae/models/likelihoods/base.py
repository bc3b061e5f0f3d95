"""The contract of a likelihood."""

from abc import ABC, abstractmethod
from copy import copy
from typing import Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from probvae.errors import ArgumentError
from probvae.foundation.checks import check_count, check_event
from probvae.foundation.registry import Registered
from probvae.models.likelihoods._missing import observed_entries


class Likelihood(nn.Module, Registered, ABC, family="likelihood"):
    """p(x|z) for x in the likelihood's support, from the numbers that the decoder gives.

    The distribution has batch_shape ``(N,)`` and event_shape ``(data_dim,)``. It takes ``num_outputs`` numbers
    from the decoder for each datum.
    """

    data_dim: int
    # what log p(x|z) is the logarithm of, a "density" or a "probability"; "none" where it is no likelihood. Numbers of
    # different kinds cannot be compared.
    measure: str = "density"
    # an element of the support, in the place of a missing entry
    fill_value: float = 0.0
    missing: str = "refuse"
    # what point() gives, for headings
    point_name: str = "E[x|z]"
    # whether rates may be multiplied by an exposure, and the one that is given (N or 1, 1)
    takes_exposure: bool = False
    exposure: Tensor | None = None

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
        p = self.distribution(parameters)
        return p if self.missing == "refuse" else observed_entries(p, self.fill_value)

    def point(self, parameters: Tensor) -> Tensor:
        """What a reconstruction shows, (..., D): the mean, unless the likelihood says otherwise."""
        return self.distribution(parameters).mean

    def own_parameters(self) -> dict[str, Tensor]:
        """Parameters beside the decoder's that a summary prints, by name."""
        return {}

    def floor_warning(self, parameters: Tensor) -> str | None:
        """The warning for learned variances or scales on their floor, at the decoder's outputs ``parameters``."""
        return None

    def given_exposure(self, exposure: Tensor) -> Self:
        """The same likelihood (and weights) for data with the exposure ``exposure`` (N or 1, 1).

        Raises :class:`~probvae.errors.ArgumentError` where there are no rates, and for one that is not positive.
        """
        self.check_exposure(exposure)
        return self.with_exposure(exposure)

    def check_exposure(self, exposure: Tensor) -> None:
        """Raise where there are no rates to multiply, and for an exposure that is not positive."""
        if not self.takes_exposure:
            raise ArgumentError(
                f"exposure: {type(self).__name__} has no rates to multiply. Leave it out, or take PoissonLikelihood or "
                "NegativeBinomialLikelihood."
            )
        if not (exposure > 0).all() or not exposure.isfinite().all():
            raise ArgumentError(f"exposure: expected positive numbers, got {float(exposure.min()):g} among them.")

    def with_exposure(self, exposure: Tensor) -> Self:
        """:meth:`given_exposure` for one that has been checked."""
        exposed = copy(self)
        exposed.exposure = exposure
        return exposed

    def exposed(self, log_rates: Tensor) -> Tensor:
        """Log-rates with the exposure multiplied in."""
        return log_rates if self.exposure is None else log_rates + self.exposure.to(log_rates).log()

    def check_data(self, x: Tensor) -> None:
        """Raise unless the data ``x`` (N, D) are possible; NaN is where ``missing`` is ``"mask"``."""
        self.check_support(torch.where(x.isnan(), self.fill_value, x) if self.missing == "mask" else x)

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
