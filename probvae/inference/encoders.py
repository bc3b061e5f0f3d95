"""g_1 = h_1: from a datum to the features that the guide's heads share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from probvae.errors import ShapeError
from probvae.foundation.checks import check_count, check_event
from probvae.foundation.registry import Registered
from probvae.models.networks import (
    Rows,
    activation_of,
    check_channels,
    check_dropout,
    down,
    halved,
    hidden_layers,
    image_size,
)


class Encoder(nn.Module, Registered, ABC, family="encoder"):
    """The trunk g_1 = h_1: x (..., data_dim) -> features (..., num_features).

    An encoder need not inherit this class: a guide takes any ``nn.Module`` together with ``num_features``.
    What inherits it can be named and saved.
    """

    data_dim: int
    num_features: int

    def forward(self, x: Tensor) -> Tensor:
        """The features (N, F) of ``x`` (N, D), F = ``num_features``."""
        check_event(x, self.data_dim, "x", "Build the encoder with data_dim equal to the data's width.")
        return self.features(x)

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The features (N, F) of ``x`` (N, D), F = ``num_features``, whose width has been checked."""

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

    Parameters: ``hidden`` is the width of each hidden layer, ``activation`` one of relu, silu, softplus, tanh;
    ``layer_norm`` normalises each hidden layer before its activation; ``dropout`` sets that share of a hidden layer to
    zero while it is trained (never in evaluation).

    >>> MLPEncoder(data_dim=64, hidden=(32, 16)).num_features
    16
    """

    def __init__(
        self,
        data_dim: int,
        hidden: Sequence[int] = (256, 256),
        activation: str = "silu",
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_count(data_dim, "data_dim")
        self.data_dim = data_dim
        self.num_features = hidden[-1] if hidden else data_dim
        self.network = nn.Sequential(*hidden_layers(data_dim, hidden, activation, layer_norm, dropout))

    def features(self, x: Tensor) -> Tensor:
        return self.network(x)

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3, hidden=(5,))


class ConvEncoder(Encoder, name="conv"):
    """Strided convolutions for images: height and width halved layer by layer.

    Parameters: ``image_shape`` [H, W] or [C, H, W], any size; ``channels`` of the layers; ``activation`` one of relu,
    silu, softplus, tanh; ``dropout`` of whole channels while it is trained. The last ``num_beside`` columns are no
    pixels (covariates, the mask of missing data) and are put beside the features.
    Raises :class:`~probvae.errors.ShapeError` unless image and ``num_beside`` make up ``data_dim``.

    >>> ConvEncoder(data_dim=35, image_shape=[5, 7], channels=(4, 8)).num_features
    32
    """

    def __init__(
        self,
        data_dim: int,
        image_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        activation: str = "silu",
        dropout: float = 0.0,
        num_beside: int = 0,
    ) -> None:
        super().__init__()
        check_count(data_dim, "data_dim")
        check_count(num_beside, "num_beside", least=0)
        depth, height, width = self._size = image_size(image_shape, data_dim - num_beside)
        check_dropout(dropout)
        check_channels(channels)
        self.data_dim = data_dim
        layers: list[nn.Module] = []
        for num_in, num_out in zip([depth, *channels[:-1]], channels, strict=True):
            layers += [down(num_in, num_out), activation_of(activation)()] + [nn.Dropout2d(dropout)] * (dropout > 0)
        self.network = Rows(nn.Sequential(*layers), 3)
        smallest = channels[-1] * halved(height, len(channels))[-1] * halved(width, len(channels))[-1]
        self.num_features = smallest + num_beside

    def features(self, x: Tensor) -> Tensor:
        num_pixels = math.prod(self._size)
        image = x[..., :num_pixels].unflatten(-1, self._size)
        return torch.cat([self.network(image).flatten(-3), x[..., num_pixels:]], dim=-1)

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3, image_shape=[1, 3], channels=(4,))


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
