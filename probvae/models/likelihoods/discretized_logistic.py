"""Grey pixels as the levels that they are."""

from typing import Any, ClassVar, Self

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from probvae._shapes import check_count, check_finite
from probvae.errors import SupportError
from probvae.models.likelihoods._scale import PositiveParameter
from probvae.models.likelihoods.base import Likelihood


class DiscretizedLogisticLikelihood(Likelihood, name="discretized-logistic"):
    r"""Grey pixels as K = 256 levels in [0, 1]: a logistic distribution, integrated over the level's bin.

    .. math:: P(x_i|z) = \sigma\Big( \frac{x_i + h - f_i(z)}{s} \Big) - \sigma\Big( \frac{x_i - h - f_i(z)}{s} \Big),
              \qquad h = \frac{1}{2 (K - 1)}

    where the lowest and the highest level take the tails. It is a probability of the data as they were stored, so that
    nats and bits per dimension can be compared with other discrete models.

    Parameters: ``num_levels`` K: the data are multiples of 1/(K - 1); ``scale`` s, in the units of x: a number,
    ``"learned"`` or ``"per-dimension"``; learned, it begins at the s of ``initial_variance`` (s^2 pi^2 / 3 is the
    variance) and stays above ``minimum_scale``.
    Raises :class:`~probvae.errors.SupportError` for data that are not such levels.
    Source: Salimans, Karpathy, Chen and Kingma (2017), arXiv:1701.05517, equation 2 (one component).

    >>> DiscretizedLogisticLikelihood(data_dim=3)(torch.zeros(5, 3)).event_shape
    torch.Size([3])
    """

    measure = "probability"

    def __init__(
        self,
        data_dim: int,
        num_levels: int = 256,
        scale: float | str = "learned",
        initial_variance: float = 0.05,
        minimum_scale: float = 1e-4,
    ) -> None:
        super().__init__(data_dim)
        check_count(num_levels, "num_levels", least=2)
        self.num_levels = num_levels
        initial = (3 * initial_variance) ** 0.5 / torch.pi
        self.scale = PositiveParameter("scale", scale, data_dim, initial, minimum_scale)

    def distribution(self, parameters: Tensor) -> TorchDistribution:
        return DiscretizedLogistic(parameters, self.scale.value(), self.num_levels).to_event(1)

    def point(self, parameters: Tensor) -> Tensor:
        return parameters.clamp(0, 1)

    def numbers(self) -> dict[str, Tensor]:
        return {"scale": self.scale.value()}

    def check_support(self, x: Tensor) -> None:
        check_finite(x)
        steps = x * (self.num_levels - 1)
        bad = ((x < 0) | (x > 1) | ((steps - steps.round()).abs() > 1e-3)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise SupportError(
                f"x: a discretized logistic likelihood needs the levels k/{self.num_levels - 1} in [0, 1], got "
                f"{x[row, column].item():g} (row {row}, column {column}; {len(bad)} such entries). Use scaling='unit', "
                "and num_levels = 1 + the largest pixel value (17 for the digits, 256 for bytes)."
            )

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3, num_levels=5, scale="per-dimension", initial_variance=0.2)


class DiscretizedLogistic(TorchDistribution):
    """The levels k/(K - 1) of [0, 1] under a logistic distribution of location ``loc`` and ``scale``."""

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.unit_interval

    def __init__(self, loc: Tensor, scale: Tensor, num_levels: int, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.num_levels = num_levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogistic":
        shape = torch.Size(batch_shape)
        return DiscretizedLogistic(self.loc.expand(shape), self.scale.expand(shape), self.num_levels)

    def log_prob(self, value: Tensor) -> Tensor:
        half = 0.5 / (self.num_levels - 1)
        upper, lower = (value + half - self.loc) / self.scale, (value - half - self.loc) / self.scale
        # log(sigmoid(b) - sigmoid(a)) = log(1 - exp(a - b)) - softplus(-b) - softplus(a), where nothing cancels
        inside = _log1mexp((lower - upper).clamp(max=-1e-30)) - softplus(-upper) - softplus(lower)
        inside = torch.where(value < half, logsigmoid(upper), inside)
        return torch.where(value > 1 - half, logsigmoid(-lower), inside)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        uniform = torch.rand(self.shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        value = self.loc + self.scale * torch.logit(uniform, eps=torch.finfo(self.loc.dtype).eps)
        steps = self.num_levels - 1
        return (value * steps).round().clamp(0, steps) / steps

    @property
    def mean(self) -> Tensor:
        """E[x], the sum over the levels' upper tails."""
        steps = self.num_levels - 1
        edges = (torch.arange(steps, dtype=self.loc.dtype, device=self.loc.device) + 0.5) / steps
        tails = torch.sigmoid((self.loc.unsqueeze(-1) - edges) / self.scale.unsqueeze(-1))
        return tails.sum(-1) / steps


def _log1mexp(a: Tensor) -> Tensor:
    """log(1 - exp(a)) for a < 0 (Maechler 2012)."""
    near = a > -0.6931471805599453
    return torch.where(near, torch.log(-torch.expm1(torch.where(near, a, -1.0))), torch.log1p(-torch.exp(a)))
