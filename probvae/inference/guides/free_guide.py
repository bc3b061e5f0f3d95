"""Guides that are not amortised: local parameters for each of N known data."""

from collections.abc import Callable
from typing import Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from probvae.errors import ArgumentError, ShapeError
from probvae.foundation.checks import check_count, check_matrix
from probvae.foundation.torch_internals import version_of
from probvae.inference.guides.base import LocalGuide
from probvae.inference.guides.diagonal_guide import diagonal_normal
from probvae.inference.guides.full_covariance_guide import full_normal
from probvae.models.cholesky import check_covariance, num_dependences

# A datum's parameters get a gradient once an epoch, a network's at every step: in these units Adam's step serves both
_GAIN = 10.0


class PerDatumGuide(LocalGuide):
    r"""q_n(z) = q(z; \lambda_n) for the n-th of N known data.

    ``x`` (N, D) are the data, ``parameters`` (N, P) the local variational parameters, ``member`` makes the
    distributions from parameters. Data are recognised by their values, in any order and number; what is not among
    them has no distribution: an error.
    Source: Hoffman et al. (2013), "Stochastic Variational Inference", the local parameters.

    >>> from torch.distributions import Independent, Normal
    >>> guide = PerDatumGuide(torch.eye(3), torch.zeros(3, 2), lambda p: Independent(Normal(p, 1.0), 1))
    >>> guide.distribution(torch.eye(3)[1:]).mean.shape
    torch.Size([2, 2])
    """

    amortized = False
    x: Tensor

    def __init__(self, x: Tensor, parameters: Tensor, member: Callable[[Tensor], TorchDistribution]) -> None:
        super().__init__(member(parameters[:1]).event_shape[0])
        self.register_buffer("x", x.detach().clone())
        self.parameters_of_data = nn.Parameter(parameters.detach().clone())
        self._member = member
        self._keys: tuple[tuple[Tensor, object], Tensor, Tensor] | None = None

    def member(self, parameters: Tensor) -> TorchDistribution:
        return self._member(parameters)

    def local_parameters(self, x: Tensor) -> Tensor:
        return self.parameters_of_data[self._rows_of(x)]

    def _rows_of(self, x: Tensor) -> Tensor:
        """Which of the guide's data the rows of ``x`` are."""
        keys, order = self._sorted_keys()
        position = torch.searchsorted(keys, _key(x)).clamp(max=len(keys) - 1)
        rows = order[position]
        same = torch.isclose(self.x[rows], x.to(self.x.dtype), rtol=0, atol=0, equal_nan=True).all(dim=-1)
        if not same.all():
            raise ArgumentError(
                f"x: this guide has one distribution for each of the {len(self.x)} data it was made for, and "
                f"{int((~same).sum())} of these {len(x)} rows are not among them (first: row "
                f"{int((~same).nonzero()[0])}). Refine the VAE for these data (probvae.refine), or take an amortised "
                "guide."
            )
        return rows

    def _sorted_keys(self) -> tuple[Tensor, Tensor]:
        if self._keys is None or self._keys[0][0] is not self.x or self._keys[0][1] != version_of(self.x):
            self._keys = ((self.x, version_of(self.x)), *_key(self.x).sort())
        return self._keys[1:]

    @classmethod
    def example(cls) -> Self:
        return cls(torch.randn(4, 3), torch.randn(4, 5), full_normal)


class FreeGuide(PerDatumGuide, name="free"):
    r"""One normal distribution for each datum, not amortised: no encoder, no amortisation gap on the training data.

    .. math:: q_n(z) = N(m_n, L_n L_n^T), \qquad n = 1 \dots N

    The parameters are trained with the model's. It begins at N(0, I) for every datum. Data are recognised by their
    values: what was not trained on has no distribution; there use :func:`probvae.refine`, which seeks it.

    Parameters: ``num_data`` N and ``data_dim`` D size it; :meth:`start_from` gives it its data. ``covariance`` is
    ``"diagonal"`` or ``"full"``. Standard deviations are kept within exp(+-10), in the units of z.
    Raises :class:`~probvae.errors.ArgumentError` for data it was not made for.
    Source: Hoffman et al. (2013), "Stochastic Variational Inference", the local parameters.

    >>> x = torch.randn(100, 3)
    >>> guide = FreeGuide(latent_dim=2, data_dim=3, num_data=100).start_from(x)
    >>> guide.distribution(x[:4]).mean.shape
    torch.Size([4, 2])
    """

    def __init__(self, latent_dim: int, data_dim: int, num_data: int, covariance: str = "diagonal") -> None:
        for name, value in {"latent_dim": latent_dim, "data_dim": data_dim, "num_data": num_data}.items():
            check_count(value, name)
        check_covariance(covariance)
        size = 2 * latent_dim + num_dependences(latent_dim, covariance)
        member = diagonal_normal if covariance == "diagonal" else full_normal
        super().__init__(torch.full((num_data, data_dim), torch.nan), torch.zeros(num_data, size), member)

    def local_parameters(self, x: Tensor) -> Tensor:
        return _GAIN * super().local_parameters(x)

    def start_from(self, x: Tensor) -> Self:
        """Take the data ``x`` (num_data, D); those that it has already keep their parameters."""
        check_matrix(x, self.x.shape[1])
        if len(x) != len(self.x):
            raise ShapeError(f"x: expected the {len(self.x)} rows that the guide was sized for, got {len(x)}.")
        if not torch.equal(x.to(self.x), self.x):
            self.x = x.detach().to(self.x).clone()
        return self

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, data_dim=3, num_data=4).start_from(torch.randn(4, 3))


def _key(x: Tensor) -> Tensor:
    """One integer a row, equal for equal values: the bits of the numbers, mixed exactly (no rounding)."""
    bits = (x.double() + 0.0).contiguous().view(torch.int64)  # -0 + 0 = 0
    multipliers = torch.arange(1, bits.shape[-1] + 1, device=x.device) * 0x9E3779B97F4A7C1 + 0x7F4A7C15
    mixed = (bits ^ (bits >> 13)) * multipliers
    return ((mixed ^ (mixed >> 29)) * 0x5851F42D4C957F2D).sum(-1)
