"""Heavy-tailed noise."""

from typing import Self

from pyro import distributions as dist
from torch import Tensor

from probvae.foundation.checks import check_finite, check_positive
from probvae.models.likelihoods._scale import PositiveParameter
from probvae.models.likelihoods.base import Likelihood
from probvae.models.stable_densities import StableStudentT


class StudentTLikelihood(Likelihood, name="student-t"):
    r"""Independent Student t noise around f(z): outliers cost little.

    .. math:: \log p(x|z) = \sum_i \log t_\nu\Big( \frac{x_i - f_i(z)}{s} \Big) - \log s, \qquad
              \operatorname{Var}[x_i|z] = s^2 \frac{\nu}{\nu - 2} \text{ for } \nu > 2

    Parameters: ``degrees`` nu; ``scale`` s, in the units of x, which is **not** the standard deviation: a number,
    ``"learned"`` or ``"per-dimension"``. A learned s begins at the standard deviation of ``initial_variance`` and stays
    above ``minimum_scale``.
    Raises :class:`~probvae.errors.ArgumentError` for a number that is not positive.
    Source: Lange, Little and Taylor (1989), "Robust Statistical Modeling Using the t Distribution", section 2.

    >>> import torch
    >>> StudentTLikelihood(data_dim=3, degrees=4.0)(torch.zeros(5, 3)).event_shape
    torch.Size([3])
    """

    point_name = "location of p(x|z)"

    def __init__(
        self,
        data_dim: int,
        degrees: float = 4.0,
        scale: float | str = "learned",
        initial_variance: float = 1.0,
        minimum_scale: float = 1e-3,
    ) -> None:
        super().__init__(data_dim)
        check_positive(degrees, "degrees")
        check_positive(initial_variance, "initial_variance")
        self.degrees = degrees
        self.scale = PositiveParameter("scale", scale, data_dim, initial_variance**0.5, minimum_scale)

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return StableStudentT(self.degrees, parameters, self.scale.value()).to_event(1)

    def point(self, parameters: Tensor) -> Tensor:
        return parameters

    def floor_warning(self, parameters: Tensor) -> str | None:
        return self.scale.floor_warning()

    def own_parameters(self) -> dict[str, Tensor]:
        return {"scale": self.scale.value()}

    def check_support(self, x: Tensor) -> None:
        check_finite(x)

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3, scale="per-dimension")
