"""Covariates y of p(z|y) p(x|z, y): their columns for networks, and the parts of a model at fixed y."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, Self, cast

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from probvae.errors import ArgumentError, ConfigError, DataError, ShapeError
from probvae.foundation.checks import check_count, check_no_mask
from probvae.foundation.registry import Registered
from probvae.models.decoders import decoded
from probvae.models.priors import Prior


class CovariatePrior(Protocol):
    """The methods of a prior that has ``num_covariates``."""

    def given(self, y: Tensor) -> TorchDistribution:
        """p(z|y) for the rows of ``y`` (N, C): batch_shape (N,), and () for one row."""


class ConditionedDecoder(nn.Module):
    """The decoder at fixed covariates, z -> decoder([z, y]); ``y`` is (N, C), or (1, C) for all data alike."""

    takes_leading_dimensions = True

    def __init__(self, decoder: nn.Module, y: Tensor) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("y", y, persistent=False)

    y: Tensor

    def forward(self, z: Tensor) -> Tensor:
        """The likelihood's parameters (..., N, num_outputs) for ``z`` (..., N, d)."""
        return decoded(self.decoder, joined(z, self.y))


class ConditionedPrior(Prior):
    """A prior with covariates at fixed covariates ``y`` (N or 1, C), p(z|y)."""

    def __init__(self, prior: Prior, y: Tensor) -> None:
        super().__init__()
        self.prior, self.latent_dim = prior, prior.latent_dim
        self.register_buffer("y", y, persistent=False)

    y: Tensor

    def forward(self) -> TorchDistribution:
        return cast(CovariatePrior, self.prior).given(self.y)

    @classmethod
    def example(cls) -> Self:
        raise ConfigError("ConditionedPrior: expected to be made by model.given(y). Call that.")


def joined(values: Tensor, y: Tensor) -> Tensor:
    """[values, y] (..., P + C) for ``values`` (..., P) and ``y`` (N or 1, C)."""
    rows = y[0] if len(y) == 1 else y
    return torch.cat([values, rows.to(values.dtype).expand(*values.shape[:-1], y.shape[-1])], dim=-1)


_MAX_NAMED = 10


class Covariates(Registered, ABC, family="covariates"):
    """The covariates of a conditional model: ``encode(y)`` gives their columns (N, num_covariates)."""

    num_covariates: int

    @abstractmethod
    def encode(self, y: Any) -> Tensor:
        """The columns for the covariates ``y`` of N data, (N, num_covariates), in the default dtype."""

    @classmethod
    @abstractmethod
    def from_data(cls, y: Any) -> Self:
        """The covariates for ``y`` (N,) or (N, C) of the training data."""

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance, used by the contract tests."""


class LabelCovariates(Covariates, name="labels"):
    """Labels of K categories, as K columns of zeros and ones.

    ``categories`` are the labels of the training data. Any other label is an error, because nothing has been learned
    about it.

    >>> LabelCovariates(["cat", "dog"]).encode(["dog", "cat"])
    tensor([[0., 1.],
            [1., 0.]])
    """

    def __init__(self, categories: Sequence[str | int | float | bool]) -> None:
        if len(set(categories)) != len(categories) or not categories:
            raise ArgumentError(f"categories: expected different labels, at least one, got {list(categories)!r}.")
        self.categories = tuple(categories)
        self.num_covariates = len(self.categories)

    def encode(self, y: Any) -> Tensor:
        values = _as_array(y)
        if values.ndim != 1:
            raise ShapeError(f"y: expected one label a datum, shape (N,), got {values.shape}. Pass y[:, 0] or so.")
        known = {_text(category): number for number, category in enumerate(self.categories)}
        present, position = np.unique(values, return_inverse=True)
        codes = np.array([known.get(_text(value), -1) for value in present.tolist()])[position]
        self._check_known(values, codes)
        return torch.nn.functional.one_hot(torch.from_numpy(codes), self.num_covariates).to(torch.get_default_dtype())

    def _check_known(self, values: np.ndarray, codes: np.ndarray) -> None:
        unseen = np.flatnonzero(codes < 0)
        if not len(unseen):
            return
        names = ", ".join(map(str, self.categories[:_MAX_NAMED])) + (", ..." * (len(self.categories) > _MAX_NAMED))
        raise DataError(
            f"y: label {values[unseen[0]]!s} (row {unseen[0]}; {len(unseen)} of {len(codes)} rows) was not seen in "
            f"training. Use one of {names}, or train with data of this label."
        )

    @classmethod
    def from_data(cls, y: Any) -> Self:
        return cls(np.unique(_as_array(y)).tolist())

    @classmethod
    def example(cls) -> Self:
        return cls(["a", "b"])


class NumberCovariates(Covariates, name="numbers"):
    """C numbers a datum, standardised by the training data's ``means`` and ``scales`` (standard deviations).

    >>> NumberCovariates(means=[1.0], scales=[2.0]).encode([3.0, 1.0])
    tensor([[1.],
            [0.]])
    """

    def __init__(self, means: Sequence[float], scales: Sequence[float]) -> None:
        check_count(len(means), "means")
        if len(means) != len(scales) or not all(0 < scale < float("inf") for scale in scales):
            raise ArgumentError(f"scales: expected {len(means)} positive numbers, one for each mean, got {scales!r}.")
        self.means, self.scales = tuple(means), tuple(scales)
        self.num_covariates = len(means)

    def encode(self, y: Any) -> Tensor:
        values = _columns(y)
        if values.shape[1] != self.num_covariates:
            raise ShapeError(
                f"y: expected {self.num_covariates} covariates a datum, shape (N, {self.num_covariates}), got "
                f"{values.shape}. Pass the covariates that the model was built for."
            )
        return torch.as_tensor((values - self.means) / self.scales, dtype=torch.get_default_dtype())

    @classmethod
    def from_data(cls, y: Any) -> Self:
        values = _columns(y)
        spread = values.std(0)
        return cls(values.mean(0).tolist(), np.where(spread > 0, spread, 1.0).tolist())

    @classmethod
    def example(cls) -> Self:
        return cls([0.5, -1.0], [2.0, 0.5])


def covariates_for(y: Any) -> Covariates:
    """Labels for text, integers and booleans of shape (N,); numbers for everything else.

    >>> covariates_for([3, 1, 3]).num_covariates, covariates_for([[0.5, 2.0], [1.0, 4.0]]).num_covariates
    (2, 2)
    """
    values = _as_array(y)
    labels = values.ndim == 1 and values.dtype.kind not in "fc"
    return (LabelCovariates if labels else NumberCovariates).from_data(values)


def _text(label: str | int | float | bool) -> str:
    """The same text for 3, 3.0 and "3": a file need not keep the type."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _columns(y: Any) -> np.ndarray:
    values = _as_array(y)
    if values.dtype.kind not in "biuf":
        raise DataError(f"y: expected numbers, got {values.dtype}. For labels use LabelCovariates.")
    values = values.astype(np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise ShapeError(f"y: expected shape (N, C), got {values.shape}. One row is one datum.")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise DataError(f"y: covariates contain NaN or infinity (first: row {row}). Drop or repair these rows.")
    return values


def _as_array(y: Any) -> np.ndarray:
    check_no_mask(y, "y")
    return y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
