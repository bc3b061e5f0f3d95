"""Decoders f, from a latent vector z to the parameters of the likelihood. They hold no probability."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from probvae.errors import ArgumentError
from probvae.foundation.checks import check_count
from probvae.foundation.registry import Registered
from probvae.models.networks import (
    Rows,
    activation_of,
    check_channels,
    check_dropout,
    halved,
    hidden_layers,
    image_size,
    up,
)


class Decoder(nn.Module, Registered, ABC, family="decoder"):
    """f: z (..., latent_dim) -> the likelihood's parameters (..., num_outputs).

    ``num_outputs`` is ``data_dim`` unless the likelihood needs more than one number a dimension; every
    likelihood says how many it needs as ``likelihood.num_outputs``. A decoder need not inherit this class:
    :class:`~probvae.models.LatentModel` takes any ``nn.Module``. A subclass can be named and saved.
    """

    latent_dim: int
    num_outputs: int

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """The likelihood's parameters (..., num_outputs) at ``z`` (..., latent_dim)."""

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance (latent_dim 2, data_dim 3), used by the contract tests."""

    def _set_sizes(self, latent_dim: int, data_dim: int, num_outputs: int | None) -> None:
        check_count(latent_dim, "latent_dim")
        check_count(data_dim, "data_dim")
        if num_outputs is not None:
            check_count(num_outputs, "num_outputs")
        self.latent_dim, self.num_outputs = latent_dim, data_dim if num_outputs is None else num_outputs


def decoded(decoder: nn.Module, z: Tensor) -> Tensor:
    """f(z) (..., num_outputs) for z (..., d), where ``decoder`` may be any module that takes rows (N, d).

    A :class:`Decoder` takes any leading dimensions. Other modules (``nn.Unflatten(1, ...)``, convolutions,
    ``nn.BatchNorm1d``) count their dimensions from the left, so they get one batch of rows.
    """
    if isinstance(decoder, Decoder) or z.ndim <= 2 or getattr(decoder, "takes_leading_dimensions", False):
        parameters: Tensor = decoder(z)
        return parameters
    parameters = decoder(z.reshape(-1, z.shape[-1]))
    return parameters.reshape(*z.shape[:-1], -1)


class LinearDecoder(Decoder, name="linear"):
    r"""Affine map, f(z) = W z + b; with a Gaussian likelihood the model is probabilistic PCA.

    Parameters: ``weight`` W (D, d), ``bias`` b (D,); W starts at N(0, 1/d), b at zero.
    Source: Tipping and Bishop (1999), "Probabilistic Principal Component Analysis", equation 2.

    >>> LinearDecoder(latent_dim=2, data_dim=3)(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(self, latent_dim: int, data_dim: int, num_outputs: int | None = None) -> None:
        super().__init__()
        self._set_sizes(latent_dim, data_dim, num_outputs)
        self.weight = nn.Parameter(torch.randn(self.num_outputs, latent_dim) / latent_dim**0.5)
        self.bias = nn.Parameter(torch.zeros(self.num_outputs))

    def forward(self, z: Tensor) -> Tensor:
        return nn.functional.linear(z, self.weight, self.bias)

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, data_dim=3)


class MLPDecoder(Decoder, name="mlp"):
    """Multilayer perceptron, f(z) = g2(g1(z)), with a linear last layer.

    Parameters: ``hidden`` is the width of each hidden layer, ``activation`` one of relu, silu, softplus, tanh.
    The default, silu, is smooth: quadrature and Hamiltonian Monte Carlo over z converge faster for it.
    ``layer_norm`` normalises each hidden layer before its activation; ``dropout`` sets that share of a hidden layer to
    zero while it is trained (never in evaluation).

    >>> MLPDecoder(latent_dim=2, data_dim=64, hidden=(32,))(torch.zeros(5, 2)).shape
    torch.Size([5, 64])
    """

    def __init__(
        self,
        latent_dim: int,
        data_dim: int,
        hidden: Sequence[int] = (256, 256),
        activation: str = "silu",
        layer_norm: bool = False,
        dropout: float = 0.0,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        self._set_sizes(latent_dim, data_dim, num_outputs)
        layers = hidden_layers(latent_dim, hidden, activation, layer_norm, dropout)
        last = hidden[-1] if hidden else latent_dim
        self.network = nn.Sequential(*layers, nn.Linear(last, self.num_outputs))

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z)

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, data_dim=3, hidden=(5,))


class ConvDecoder(Decoder, name="conv"):
    """Transposed convolutions for images: a linear layer, then height and width doubled layer by layer.

    Parameters: ``image_shape`` [H, W] or [C, H, W] with H W C = ``data_dim``, any size; ``channels`` of the layers from
    the image inwards, so that the linear layer makes the last; ``activation`` one of relu, silu, softplus,
    tanh; ``dropout`` of whole channels while it is trained. ``num_outputs`` k D gives k numbers a pixel,
    beside each other; outputs left over (the log c of a variance "per-datum") are affine in the pixels.
    Raises :class:`~probvae.errors.ShapeError` for an image of another size than D.

    >>> ConvDecoder(latent_dim=2, data_dim=35, image_shape=[5, 7], channels=(4, 8))(torch.zeros(3, 2)).shape
    torch.Size([3, 35])
    """

    def __init__(
        self,
        latent_dim: int,
        data_dim: int,
        image_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        activation: str = "silu",
        dropout: float = 0.0,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        self._set_sizes(latent_dim, data_dim, num_outputs)
        depth, height, width = image_size(image_shape, data_dim)
        check_dropout(dropout)
        check_channels(channels)
        self.per_pixel = _numbers_per_pixel(self.num_outputs, data_dim)
        heights, widths = (halved(size, len(channels)) for size in (height, width))
        start = (channels[-1], heights[-1], widths[-1])
        layers: list[nn.Module] = [nn.Linear(latent_dim, start[0] * start[1] * start[2]), nn.Unflatten(1, start)]
        outwards = [*reversed(channels), depth * self.per_pixel]
        for level, (num_in, num_out) in enumerate(pairwise(outwards)):
            target = len(channels) - 1 - level
            layers += [activation_of(activation)()] + [nn.Dropout2d(dropout)] * (dropout > 0)
            layers.append(up(num_in, num_out, (heights[target] % 2 == 1, widths[target] % 2 == 1)))
        self.network = Rows(nn.Sequential(*layers), 1)
        num_pixels = data_dim * self.per_pixel
        self.rest = nn.Linear(num_pixels, self.num_outputs - num_pixels) if self.num_outputs > num_pixels else None

    def forward(self, z: Tensor) -> Tensor:
        image = self.network(z).flatten(-2)  # (..., C k, H W)
        pixels = image.unflatten(-2, (-1, self.per_pixel)).movedim(-2, -1).flatten(-3)
        return pixels if self.rest is None else torch.cat([pixels, self.rest(pixels)], dim=-1)

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, data_dim=3, image_shape=[1, 3], channels=(4,))


def _numbers_per_pixel(num_outputs: int, data_dim: int) -> int:
    if num_outputs < data_dim:
        raise ArgumentError(
            f"num_outputs: expected at least one a pixel ({data_dim}), got {num_outputs}. Use decoder 'mlp'."
        )
    return num_outputs // data_dim
