"""Grey values in [0, 1], with the normaliser that binary cross-entropy lacks."""

import math
from fractions import Fraction
from typing import Any, Self

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions.utils import broadcast_all

from probvae.foundation.checks import check_finite
from probvae.foundation.torch_internals import check_value
from probvae.models.likelihoods.base import Likelihood
from probvae.models.likelihoods.bernoulli_likelihood import check_unit_interval


class ContinuousBernoulliLikelihood(Likelihood, name="continuous-bernoulli"):
    r"""Independent dimensions in [0, 1]; the decoder gives log-odds.

    .. math:: \log p(x|z) = \sum_i \log C(\lambda_i) + x_i \log \lambda_i + (1 - x_i) \log(1 - \lambda_i),
              \qquad C(\lambda) = \frac{2 \operatorname{artanh}(1 - 2\lambda)}{1 - 2\lambda}, \quad C(1/2) = 2

    with lambda = sigmoid(f(z)). Raises :class:`~probvae.errors.SupportError` for values outside [0, 1].
    Source: Loaiza-Ganem and Cunningham (2019), arXiv:1907.06845, equations 4 to 6.

    >>> import torch
    >>> ContinuousBernoulliLikelihood(data_dim=3)(torch.zeros(5, 3)).event_shape
    torch.Size([3])
    """

    bounds = (0.0, 1.0)

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return StableContinuousBernoulli(parameters).to_event(1)

    def check_support(self, x: Tensor) -> None:
        check_finite(x)
        check_unit_interval(x)

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3)


class StableContinuousBernoulli(dist.TorchDistribution):
    r"""The continuous Bernoulli by its log-odds l, right to rounding for every finite l.

    .. math:: p(x) = \frac{l\, e^{l x}}{e^l - 1} = \frac{a\, e^{-a y}}{1 - e^{-a}}, \qquad a = |l|, \quad
              y = 1 - x \text{ for } l > 0, \quad y = x \text{ otherwise}

    so x is an exponential variable of rate a from the end that l favours, cut off at 1. torch's own class works with
    lambda = sigmoid(l), which is 0 or 1 in the dtype long before the density stops depending on l.
    ``logits`` has any shape, which is the batch_shape; draws can be differentiated.
    """

    arg_constraints = {"logits": dist.constraints.real}  # noqa: RUF012
    support = dist.constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        (self.logits,) = broadcast_all(logits)
        super().__init__(self.logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StableContinuousBernoulli":
        return StableContinuousBernoulli(self.logits.expand(torch.Size(batch_shape)), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p (..., D) of ``value`` (..., D) in [0, 1], in nats."""
        check_value(self, value)
        rate = _rate(self.logits)
        from_end = torch.where(self.logits > 0, 1 - value, value)
        return _log_normaliser(rate) - rate * from_end

    @property
    def mean(self) -> Tensor:
        """E[x] = 1 / (1 - exp(-l)) - 1 / l, (..., D)."""
        from_end = _mean_from_end(_rate(self.logits))
        return torch.where(self.logits > 0, 1 - from_end, from_end)

    @property
    def variance(self) -> Tensor:
        """1 / l^2 - 1 / (4 sinh(l/2)^2), (..., D)."""
        rate = _rate(self.logits)
        large = rate.clamp(min=_SMALL)
        half = torch.exp(-large / 2) / -torch.expm1(-large)  # 1 / (2 sinh(a/2)), which underflows and never overflows
        return torch.where(rate < _SMALL, _series(_VARIANCE, rate), large.reciprocal().square() - half.square())

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws (S, ..., D) that can be differentiated in the log-odds."""
        uniform = torch.rand(self.shape(sample_shape), dtype=self.logits.dtype, device=self.logits.device)
        return self.icdf(uniform)

    def icdf(self, value: Tensor) -> Tensor:
        """x (..., D) with P(X <= x) = ``value`` (..., D)."""
        rate = _rate(self.logits)
        tiny = torch.finfo(rate.dtype).tiny
        quantile = torch.where(self.logits > 0, 1 - value, value)
        from_end = -torch.log1p(quantile * torch.expm1(-rate)) / rate.clamp(min=tiny)
        from_end = torch.where(rate > torch.finfo(rate.dtype).eps, from_end, quantile).clamp(0, 1)
        return torch.where(self.logits > 0, 1 - from_end, from_end)

    def cdf(self, value: Tensor) -> Tensor:
        """P(X <= ``value``) (..., D) for ``value`` (..., D)."""
        rate = _rate(self.logits)
        from_end = torch.where(self.logits > 0, 1 - value, value)
        large = rate.clamp(min=torch.finfo(rate.dtype).eps)
        mass = torch.where(rate < large, from_end, torch.expm1(-large * from_end) / torch.expm1(-large))
        return torch.where(self.logits > 0, 1 - mass, mass).clamp(0, 1)

    def entropy(self) -> Tensor:
        """-E[log p(x)], of batch_shape, in nats."""
        rate = _rate(self.logits)
        return rate * _mean_from_end(rate) - _log_normaliser(rate)


# Below this rate the closed forms cancel, and the series in Bernoulli numbers has converged.
_SMALL = 1.0
_NUM_TERMS = 11


def _bernoulli_numbers(count: int) -> list[Fraction]:
    """B_0, ..., B_(count - 1)."""
    numbers = [Fraction(1)]
    for n in range(1, count):
        numbers.append(-sum((math.comb(n + 1, k) * b for k, b in enumerate(numbers)), Fraction(0)) / (n + 1))
    return numbers


# B_2n / (2n)! for n = 1, 2, ...: the series of coth(a/2)/2 - 1/a in powers a^(2n - 1).
_COTH = [_bernoulli_numbers(2 * _NUM_TERMS + 1)[2 * n] / math.factorial(2 * n) for n in range(1, _NUM_TERMS + 1)]
_LOG_SINHC = [float(term / (2 * n)) for n, term in enumerate(_COTH, start=1)]  # a^2n, of log(sinh(a/2) / (a/2))
_MEAN = [float(term) for term in _COTH]
_VARIANCE = [float(term * (2 * n - 1)) for n, term in enumerate(_COTH, start=1)]  # a^(2n - 2)


def _series(coefficients: list[float], rate: Tensor) -> Tensor:
    """sum_n coefficients[n] a^2n for the small among the rates a; any number elsewhere."""
    square = rate.clamp(max=_SMALL).square()
    # Each term adds a factor 1 / (2 pi)^2 at a = 1, so that single precision needs half of them.
    used = coefficients if rate.dtype == torch.float64 else coefficients[:6]
    total = torch.full_like(square, used[-1])
    for coefficient in reversed(used[:-1]):
        total = total * square + coefficient
    return total


def _rate(logits: Tensor) -> Tensor:
    """|l|, whose gradient at zero is that of one side, as the formulas of that side need it."""
    return torch.where(logits > 0, logits, -logits)


def _log_normaliser(rate: Tensor) -> Tensor:
    """log(a / (1 - exp(-a))) for a >= 0."""
    small = rate / 2 - rate.square() * _series(_LOG_SINHC, rate)
    large = rate.clamp(min=_SMALL)
    return torch.where(rate < _SMALL, small, large.log() - torch.log(-torch.expm1(-large)))


def _mean_from_end(rate: Tensor) -> Tensor:
    """E[y] = 1/a - 1/(e^a - 1) for a >= 0: 1/2 at a = 0, 1/a for large a."""
    large = rate.clamp(min=_SMALL)
    closed = large.reciprocal() - torch.exp(-large) / -torch.expm1(-large)
    return torch.where(rate < _SMALL, 0.5 - rate * _series(_MEAN, rate), closed)
