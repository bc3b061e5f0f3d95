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
    """p(x|z) for x in the likelihood's support, from the decoder's outputs.

    The distribution has batch_shape ``(N,)`` and event_shape ``(data_dim,)``. It takes ``num_outputs`` outputs of the
    decoder for each datum.
    """

    data_dim: int
    # log p(x|z) is the logarithm of a "density" or a "probability", or of "none" of them where it is no likelihood;
    # values of different measures cannot be compared
    measure: str = "density"
    # An element of the support that stands in the place of a missing entry
    fill_value: float = 0.0
    missing: str = "refuse"
    # The name of point() in headings
    point_name: str = "E[x|z]"
    # True where the likelihood has rates that an exposure multiplies; `exposure` is (N or 1, 1), or None for 1
    takes_exposure: bool = False
    exposure: Tensor | None = None

    def __init__(self, data_dim: int) -> None:
        super().__init__()
        check_count(data_dim, "data_dim")
        self.data_dim = data_dim

    @property
    def num_outputs(self) -> int:
        """The number of outputs that the decoder has to give for each datum."""
        return self.data_dim

    def forward(self, parameters: Tensor) -> TorchDistribution:
        """p(x|z), batch_shape (...), event_shape (D,), from the decoder's output ``parameters`` (..., num_outputs)."""
        fix = f"Build the decoder with num_outputs={self.num_outputs}."
        check_event(parameters, self.num_outputs, "the decoder's output", fix)
        p = self.distribution(parameters)
        return p if self.missing == "refuse" else observed_entries(p, self.fill_value)

    def point(self, parameters: Tensor) -> Tensor:
        """The value (..., D) that a reconstruction shows at ``parameters`` (..., num_outputs); by default the mean."""
        return self.distribution(parameters).mean

    def own_parameters(self) -> dict[str, Tensor]:
        """Learned parameters beside the decoder's, () or (D,), by the name that a summary prints."""
        return {}

    def floor_warning(self, parameters: Tensor) -> str | None:
        """The warning for learned variances or scales on their floor, at ``parameters`` (..., num_outputs)."""
        return None

    def given_exposure(self, exposure: Tensor) -> Self:
        """A likelihood with the same weights for data with the exposure ``exposure`` (N or 1, 1).

        Raises :class:`~probvae.errors.ArgumentError` where there are no rates, and for one that is not positive.
        """
        self.check_exposure(exposure)
        return self.with_exposure(exposure)

    def check_exposure(self, exposure: Tensor) -> None:
        """Raise where there are no rates to multiply, and for an ``exposure`` (N or 1, 1) that is not positive."""
        if not self.takes_exposure:
            raise ArgumentError(
                f"exposure: {type(self).__name__} has no rates to multiply. Leave it out, or take PoissonLikelihood or "
                "NegativeBinomialLikelihood."
            )
        if not (exposure > 0).all() or not exposure.isfinite().all():
            raise ArgumentError(f"exposure: expected positive numbers, got {float(exposure.min()):g} among them.")

    def with_exposure(self, exposure: Tensor) -> Self:
        """:meth:`given_exposure` without a check of the values of ``exposure`` (N or 1, 1)."""
        exposed = copy(self)
        exposed.exposure = exposure
        return exposed

    def exposed(self, log_rates: Tensor) -> Tensor:
        """``log_rates`` (..., N, D) with the exposure multiplied in."""
        return log_rates if self.exposure is None else log_rates + self.exposure.to(log_rates).log()

    def check_data(self, x: Tensor) -> None:
        """Raise unless the data ``x`` (N, D) are possible; NaN is possible where ``missing`` is ``"mask"``."""
        self.check_support(torch.where(x.isnan(), self.fill_value, x) if self.missing == "mask" else x)

    @abstractmethod
    def distribution(self, parameters: Tensor) -> TorchDistribution:
        """Build p(x|z), batch_shape (...), from ``parameters`` (..., num_outputs), whose shape has been checked."""

    @abstractmethod
    def check_support(self, x: Tensor) -> None:
        """Raise :class:`~probvae.errors.SupportError` when the data ``x`` (N, D) lie outside the support."""

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance (data_dim 3), used by the contract tests."""
