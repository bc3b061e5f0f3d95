"""f: from a latent vector z to the parameters of the likelihood. No probability in it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from probvae._networks import hidden_layers
from probvae._registry import Registered
from probvae._shapes import check_count


class Decoder(nn.Module, Registered, ABC, family="decoder"):
    """f: z (..., latent_dim) -> the likelihood's parameters (..., num_outputs).

    ``num_outputs`` is ``data_dim`` unless the likelihood needs more than one number a dimension; every
    likelihood says how many it needs as ``likelihood.num_outputs``. A decoder need not inherit this class:
    :class:`~probvae.models.LatentModel` takes any ``nn.Module``. What inherits it can be named and saved.
    """

    latent_dim: int
    num_outputs: int

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """The likelihood's parameters at ``z``."""

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

    >>> MLPDecoder(latent_dim=2, data_dim=64, hidden=(32,))(torch.zeros(5, 2)).shape
    torch.Size([5, 64])
    """

    def __init__(
        self,
        latent_dim: int,
        data_dim: int,
        hidden: Sequence[int] = (256, 256),
        activation: str = "silu",
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        self._set_sizes(latent_dim, data_dim, num_outputs)
        layers = hidden_layers(latent_dim, hidden, activation)
        last = hidden[-1] if hidden else latent_dim
        self.network = nn.Sequential(*layers, nn.Linear(last, self.num_outputs))

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z)

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, data_dim=3, hidden=(5,))
