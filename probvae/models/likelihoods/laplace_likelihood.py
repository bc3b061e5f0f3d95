"""Absolute errors."""

from typing import Self

from pyro import distributions as dist
from torch import Tensor

from probvae.foundation.checks import check_finite, check_positive
from probvae.models.likelihoods._scale import PositiveParameter
from probvae.models.likelihoods.base import Likelihood


class LaplaceLikelihood(Likelihood, name="laplace"):
    r"""Independent Laplace noise around f(z): the absolute error instead of the squared one.

    .. math:: \log p(x|z) = -\sum_i \frac{|x_i - f_i(z)|}{s} - D \log 2s, \qquad \operatorname{Var}[x_i|z] = 2 s^2

    Parameters: ``scale`` s, in the units of x (the mean absolute error, **not** the standard deviation): a number,
    ``"learned"`` or ``"per-dimension"``. A learned s begins at the s of ``initial_variance`` and stays above
    ``minimum_scale``.
    Raises :class:`~probvae.errors.ArgumentError` for a number that is not positive.
    Source: Kotz, Kozubowski and Podgorski (2001), "The Laplace Distribution and Generalizations", section 2.1.

    >>> import torch
    >>> LaplaceLikelihood(data_dim=3)(torch.zeros(5, 3)).event_shape
    torch.Size([3])
    """

    def __init__(
        self,
        data_dim: int,
        scale: float | str = "learned",
        initial_variance: float = 1.0,
        minimum_scale: float = 1e-3,
    ) -> None:
        super().__init__(data_dim)
        check_positive(initial_variance, "initial_variance")
        self.scale = PositiveParameter("scale", scale, data_dim, (initial_variance / 2) ** 0.5, minimum_scale)

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return dist.Laplace(parameters, self.scale.value()).to_event(1)

    def floor_warning(self, parameters: Tensor) -> str | None:
        return self.scale.floor_warning()

    def own_parameters(self) -> dict[str, Tensor]:
        return {"scale": self.scale.value()}

    def check_support(self, x: Tensor) -> None:
        check_finite(x)

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3, scale="learned")
