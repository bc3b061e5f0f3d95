"""g_1 = h_1: from a datum to the features that the guide's heads share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from probvae._networks import hidden_layers
from probvae._registry import Registered
from probvae._shapes import check_count, check_event
from probvae.errors import ShapeError


class Encoder(nn.Module, Registered, ABC, family="encoder"):
    """The trunk g_1 = h_1: x (..., data_dim) -> features (..., num_features).

    An encoder need not inherit this class: a guide takes any ``nn.Module`` together with ``num_features``.
    What inherits it can be named and saved.
    """

    data_dim: int
    num_features: int

    def forward(self, x: Tensor) -> Tensor:
        """The features of ``x``."""
        check_event(x, self.data_dim, "x", "Build the encoder with data_dim equal to the data's width.")
        return self.features(x)

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The features of ``x``, whose width has been checked."""

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance (data_dim 3), used by the contract tests."""


def width_of(encoder: nn.Module) -> int:
    """``encoder.num_features``, the width of its output."""
    num_features = getattr(encoder, "num_features", None)
    if isinstance(num_features, int):
        return num_features
    raise ShapeError(
        f"encoder: expected an attribute num_features (the width of its output), {type(encoder).__name__} has none. "
        "Pass num_features=... to the guide."
    )


class LinearEncoder(Encoder, name="linear"):
    """No hidden layer: the features are the data, so that g and log s are affine in x.

    For a linear decoder with Gaussian noise the exact posterior mean is affine in x and its covariance is constant:
    this encoder reaches both.

    >>> LinearEncoder(data_dim=3).num_features
    3
    """

    def __init__(self, data_dim: int) -> None:
        super().__init__()
        check_count(data_dim, "data_dim")
        self.data_dim = self.num_features = data_dim

    def features(self, x: Tensor) -> Tensor:
        return x

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3)


class MLPEncoder(Encoder, name="mlp"):
    """Multilayer perceptron.

    Parameters: ``hidden`` is the width of each hidden layer, ``activation`` one of relu, silu, softplus, tanh.

    >>> MLPEncoder(data_dim=64, hidden=(32, 16)).num_features
    16
    """

    def __init__(self, data_dim: int, hidden: Sequence[int] = (256, 256), activation: str = "silu") -> None:
        super().__init__()
        check_count(data_dim, "data_dim")
        self.data_dim = data_dim
        self.num_features = hidden[-1] if hidden else data_dim
        self.network = nn.Sequential(*hidden_layers(data_dim, hidden, activation))

    def features(self, x: Tensor) -> Tensor:
        return self.network(x)

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3, hidden=(5,))


class MaskedEncoder(Encoder, name="masked"):
    """For data with missing entries: another encoder reads the data with zeros for NaN, beside what was observed.

    ``encoder`` takes ``data_dim`` + ``num_masked`` columns: x with zeros, and the mask, one where x was observed.
    ``num_masked`` (by default all) counts the leading columns that may be missing; covariates come after them.

    >>> import torch
    >>> encoder = MaskedEncoder(MLPEncoder(data_dim=6, hidden=(8,)), data_dim=3)
    >>> bool(encoder(torch.full((2, 3), torch.nan)).isfinite().all())
    True
    """

    def __init__(self, encoder: nn.Module, data_dim: int, num_masked: int | None = None) -> None:
        super().__init__()
        check_count(data_dim, "data_dim")
        self.data_dim, self.num_masked = data_dim, data_dim if num_masked is None else num_masked
        check_count(self.num_masked, "num_masked")
        inner = getattr(encoder, "data_dim", data_dim + self.num_masked)
        if inner != data_dim + self.num_masked:
            raise ShapeError(
                f"encoder: expected data_dim={data_dim + self.num_masked} (x beside its mask), got {inner}. "
                f"Build it with data_dim={data_dim + self.num_masked}."
            )
        self.encoder = encoder
        self.num_features = width_of(encoder)

    def features(self, x: Tensor) -> Tensor:
        observed = ~x[..., : self.num_masked].isnan()
        return self.encoder(torch.cat([x.nan_to_num(nan=0.0), observed.to(x.dtype)], dim=-1))

    @classmethod
    def example(cls) -> Self:
        return cls(MLPEncoder(data_dim=6, hidden=(5,)), data_dim=3)
