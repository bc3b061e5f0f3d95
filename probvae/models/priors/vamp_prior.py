"""A prior made of the guide's own posteriors."""

from typing import Any, Protocol, Self, cast

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from probvae.foundation.checks import check_count, check_matrix
from probvae.models.priors.base import Prior


class _Guide(Protocol):
    latent_dim: int

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        """q_x(z), batch_shape (N,), for the rows of ``x`` (N, D)."""


class VampPrior(Prior, name="vamp"):
    r"""Mixture of the guide's own posteriors at K learned pseudo-data u_k: the variational mixture of posteriors.

    .. math:: p(z) = \sum_{k=1}^K \pi_k\, q_{u_k}(z)

    The best prior for a guide is its aggregate posterior, the mean of q_x over all data; this is the same over K data
    that are learned. Parameters: ``guide``, the very guide that the VAE has (its weights are the guide's, and are
    trained there), ``data_dim`` the width of what the guide reads, ``num_components`` K; ``pseudo_data`` u (K, D) and
    ``logits`` log pi_k up to a constant. :meth:`start_from` puts the pseudo-data at some of the data.
    Raises :class:`~probvae.errors.ArgumentError` for counts below one.
    Source: Tomczak and Welling (2018), arXiv:1705.07120, equation 9.

    >>> from probvae.inference import DiagonalGuide, LinearEncoder
    >>> VampPrior(DiagonalGuide(LinearEncoder(3), 2), data_dim=3, num_components=4)().event_shape
    torch.Size([2])
    """

    def __init__(self, guide: nn.Module, data_dim: int, num_components: int = 50) -> None:
        super().__init__()
        check_count(data_dim, "data_dim")
        check_count(num_components, "num_components")
        # nn.Module does not look into a tuple: the parameters belong to the guide, and must be listed once only
        self._guide = (guide,)
        self.latent_dim = cast(_Guide, guide).latent_dim
        self.pseudo_data = nn.Parameter(torch.randn(num_components, data_dim))
        self.logits = nn.Parameter(torch.zeros(num_components))

    @property
    def guide(self) -> nn.Module:
        """The guide whose posteriors are the components."""
        return self._guide[0]

    def forward(self) -> dist.TorchDistribution:
        components = cast(_Guide, self.guide).distribution(self.pseudo_data)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)

    @torch.no_grad()
    def start_from(self, x: Tensor) -> Self:
        """Put the pseudo-data at rows of ``x`` (N, D) that are drawn at random."""
        check_matrix(x, self.pseudo_data.shape[1])
        rows = torch.randint(len(x), (len(self.pseudo_data),), device=x.device)
        self.pseudo_data.copy_(x[rows])
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Called by ``.to()`` and ``.double()``: the guide moves too, because it has to read the pseudo-data."""
        super()._apply(*args, **kwargs)
        self.guide._apply(*args, **kwargs)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this prior and of its guide."""
        super().train(mode)
        self.guide.train(mode)
        return self

    @classmethod
    def example(cls) -> Self:
        return cls(_ExampleGuide(), data_dim=3, num_components=4)


class _ExampleGuide(nn.Module):
    """The smallest guide there is, because models stand below inference and know no real guide."""

    latent_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Linear(3, 2)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc = self.loc(x)
        return dist.Normal(loc, 0.5 * torch.ones_like(loc)).to_event(1)
