"""Grey pixels as the levels that they are."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn.functional import logsigmoid

from probvae.foundation.checks import check_count
from probvae.foundation.torch_internals import check_value
from probvae.models.likelihoods._scale import PositiveParameter
from probvae.models.likelihoods.base import Likelihood, check_entries

# The largest number of levels that a message proposes for data that do not fit
_MOST_LEVELS = 1024


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

    point_name = "location of p(x|z)"
    measure = "probability"
    bounds = (0.0, 1.0)

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

    def own_parameters(self) -> dict[str, Tensor]:
        return {"scale": self.scale.value()}

    def check_support(self, x: Tensor) -> None:
        needs = f"a discretized logistic likelihood needs the levels k/{self.num_levels - 1} in [0, 1]"
        fits = Levels(self.num_levels).check(x)
        check_entries(x, fits, needs, "" if fits.all() else _fix(x))

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3, num_levels=5, scale="per-dimension", initial_variance=0.2)


class Levels(constraints.Constraint):
    """The values 0, 1/(K - 1), ..., 1, up to the rounding of a division in float32."""

    is_discrete = True

    def __init__(self, num_levels: int) -> None:
        self.num_levels = num_levels

    def check(self, value: Tensor) -> Tensor:
        """True (...) where ``value`` (...) is a level."""
        steps = value * (self.num_levels - 1)
        return (value >= 0) & (value <= 1) & ((steps - steps.round()).abs() <= 1e-3)


class DiscretizedLogistic(TorchDistribution):
    """The levels k/(K - 1) of [0, 1] under a logistic distribution of location ``loc`` and ``scale``."""

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: Tensor, scale: Tensor, num_levels: int, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.num_levels = num_levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return Levels(self.num_levels)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogistic":
        shape = torch.Size(batch_shape)
        return DiscretizedLogistic(self.loc.expand(shape), self.scale.expand(shape), self.num_levels)

    def log_prob(self, value: Tensor) -> Tensor:
        """log P (..., D) of the levels ``value`` (..., D)."""
        check_value(self, value)
        steps = self.num_levels - 1
        level = (value * steps).round()
        above = logsigmoid(((level + 0.5) / steps - self.loc) / self.scale)
        below = logsigmoid((self.loc - (level - 0.5) / steps) / self.scale)
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): nothing cancels, and b - a is a bin's
        # width, which no rounding of a and b has touched
        inside = above + below + _log1mexp(-1 / (steps * self.scale))
        return torch.where(level == 0, above, torch.where(level == steps, below, inside))

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Levels (sample_shape, ..., D)."""
        uniform = torch.rand(self.shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        value = self.loc + self.scale * torch.logit(uniform, eps=torch.finfo(self.loc.dtype).eps)
        steps = self.num_levels - 1
        return (value * steps).round().clamp(0, steps) / steps

    @property
    def mean(self) -> Tensor:
        """E[x] (..., D)."""
        return self._tails(lambda level: 1.0) / (self.num_levels - 1)

    @property
    def variance(self) -> Tensor:
        """E[x^2] - E[x]^2 (..., D)."""
        return self._tails(lambda level: 2.0 * level + 1.0) / (self.num_levels - 1) ** 2 - self.mean.square()

    def _tails(self, increment: Callable[[int], float]) -> Tensor:
        """E[g(k)] of the level k for g(0) = 0: the sum over k of (g(k + 1) - g(k)) P(level > k)."""
        steps = self.num_levels - 1
        # The edges are summed one by one, because all at once would take K times the memory of the data
        tails = (increment(k) * torch.sigmoid((self.loc - (k + 0.5) / steps) / self.scale) for k in range(steps))
        return sum(tails, torch.zeros_like(self.loc))


def _fix(x: Tensor) -> str:
    """The advice that makes levels of the data ``x`` (N, D): a scaling, or another number of levels."""
    if x.min() < 0 or x.max() > 1:
        return "scaling='unit', and num_levels = 1 + the largest pixel value"
    values = x.unique()
    candidates = range(2, min(_MOST_LEVELS, 4 * len(values)) + 1)
    found = next((n for n in candidates if Levels(n).check(values).all()), None)
    return "a continuous-bernoulli likelihood" if found is None else f"num_levels={found}, which these data have"


def _log1mexp(a: Tensor) -> Tensor:
    """log(1 - exp(a)) for a < 0 (Maechler 2012)."""
    near = a > -0.6931471805599453
    return torch.where(near, torch.log(-torch.expm1(torch.where(near, a, -1.0))), torch.log1p(-torch.exp(a)))
