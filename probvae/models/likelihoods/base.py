"""The contract of a likelihood, with missing entries and refusals of data, which all likelihoods share."""

from abc import ABC, abstractmethod
from copy import copy
from typing import Any, Self

import torch
from pyro.distributions import Independent, TorchDistribution
from torch import Tensor, nn

from probvae.errors import ArgumentError, SupportError
from probvae.foundation.checks import check_count, check_event, check_finite
from probvae.foundation.registry import Registered


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
    # The ends between which all data lie, where there are such ends
    bounds: tuple[float, float] | None = None
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


class ObservedEntries(Independent):
    """Independent entries; an entry that is NaN is missing, and adds nothing to the log density."""

    fill_value: float = 0.0

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density (...) of the observed entries of ``value`` (..., D)."""
        missing = value.isnan()
        log_prob = self.base_dist.log_prob(torch.where(missing, self.fill_value, value))
        return log_prob.masked_fill(missing, 0.0).sum(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ObservedEntries":
        return observed_entries(self.base_dist.expand(torch.Size(batch_shape) + self.event_shape), self.fill_value)


def observed_entries(p: TorchDistribution, fill_value: float) -> ObservedEntries:
    """p(x|z) for x with NaN. ``fill_value`` is an element of the support, and its density is left out again."""
    if isinstance(p, torch.distributions.Independent) and p.reinterpreted_batch_ndims == 1:
        p = p.base_dist
    elif p.event_shape:
        raise ArgumentError(
            f"missing: expected a likelihood whose entries are independent given z, got {type(p).__name__}. "
            "Use missing='refuse' and drop the rows with missing entries."
        )
    result = ObservedEntries(p, 1)
    result.fill_value = fill_value
    return result


def check_entries(x: Tensor, fits: Tensor, needs: str, fix: str) -> None:
    """Raise unless every entry of ``x`` (N, D) is finite and ``fits`` (N, D) there; ``needs`` says what fits."""
    check_finite(x)
    bad = (~fits).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        # A single column belongs to a table, whose likelihood names the column
        where = f"row {row}" if x.shape[1] == 1 else f"row {row}, column {column}"
        raise SupportError(f"x: {needs}, got {x[row, column].item():g} ({where}; {len(bad)} such entries). Use {fix}.")


def check_counts(x: Tensor, likelihood: str) -> None:
    """Raise unless every value of ``x`` (N, D) is one of 0, 1, 2, ..."""
    fix = "scaling='none', or take a Gaussian likelihood"
    check_entries(x, (x >= 0) & (x == x.round()), f"{likelihood} needs counts 0, 1, 2, ...", fix)
