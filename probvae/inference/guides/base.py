"""The contract of a guide."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from probvae.foundation.checks import check_count
from probvae.foundation.registry import Registered
from probvae.inference.encoders import width_of
from probvae.models.latent import announce_parameters

# |log scale| stays below this: a factor of 22026 from the prior's own scale on either side
LOG_SCALE_BOUND = 10.0


class Guide(nn.Module, Registered, ABC, family="guide"):
    """q_x(z), the variational posterior: a Pyro guide with the site ``"z"`` in the plate ``"data"``.

    ``guide.distribution(x)`` has batch_shape ``(N,)`` and event_shape ``(latent_dim,)``.
    """

    latent_dim: int
    # False where only the data that were trained on have a q_x
    amortized: ClassVar[bool] = True

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        check_count(latent_dim, "latent_dim")
        self.latent_dim = latent_dim

    @abstractmethod
    def distribution(self, x: Tensor) -> TorchDistribution:
        """q_x(z) for each row of ``x`` (N, D)."""

    def start_from(self, x: Tensor) -> Self:
        """Set what depends on the training data ``x`` (N, D), as the guide reads them; most guides need nothing."""
        return self

    def forward(self, x: Tensor, num_data: int | None = None) -> Tensor:
        """Run the program: draw z (N, d) from q_x. ``num_data`` is there for the model's sake and not used."""
        announce_parameters(self, "guide")
        with pyro.plate("data", x.shape[-2]):
            return pyro.sample("z", self.distribution(x))

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance (data_dim 3, latent_dim 2), used by the contract tests."""


class LocalGuide(Guide):
    r"""A guide that picks one member of a family for each datum, q_x(z) = q(z; \lambda(x)).

    :math:`\lambda(x)`, the local variational parameters, are P unconstrained numbers. The family is known apart from
    the way they are found, so that the best member can be sought (:func:`~probvae.inference.refine.refine`) and the
    encoder's choice compared with it. Source: Hoffman et al. (2013), "Stochastic Variational Inference", section 2.
    """

    @abstractmethod
    def local_parameters(self, x: Tensor) -> Tensor:
        """The parameters (N, P) that the guide gives to the rows of ``x`` (N, D)."""

    @abstractmethod
    def member(self, parameters: Tensor) -> TorchDistribution:
        """The members q(z; lambda) for ``parameters`` (..., P): batch_shape (...), event_shape (latent_dim,)."""

    def distribution(self, x: Tensor) -> TorchDistribution:
        return self.member(self.local_parameters(x))


class AmortizedGuide(LocalGuide):
    """A guide with an encoder: the trunk g_1 = h_1, from which linear heads make g and h."""

    def __init__(self, encoder: nn.Module, latent_dim: int, num_features: int | None = None) -> None:
        super().__init__(latent_dim)
        self.encoder = encoder
        if num_features is not None:
            check_count(num_features, "num_features")
        self.num_features = width_of(encoder) if num_features is None else num_features

    @abstractmethod
    def heads(self) -> list[nn.Linear]:
        """The heads, in the order in which :meth:`member` reads their outputs."""

    def local_parameters(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        return torch.cat([head(features) for head in self.heads()], dim=-1)

    def linear_head(self, num_outputs: int) -> nn.Linear:
        """A head on the encoder's features."""
        return nn.Linear(self.num_features, num_outputs)

    def zero_head(self, num_outputs: int) -> nn.Linear:
        """A head that starts at zero: the covariance begins as the prior's, the same for every datum."""
        head = self.linear_head(num_outputs)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head


def bounded_scale(raw: Tensor) -> Tensor:
    """A positive scale (...) from real numbers ``raw`` (...): exp(raw) near zero, within exp(+-10), smooth."""
    return torch.exp(LOG_SCALE_BOUND * torch.tanh(raw / LOG_SCALE_BOUND))
