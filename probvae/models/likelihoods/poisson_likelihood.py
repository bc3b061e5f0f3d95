"""Counts whose variance is their mean."""

import math
from typing import Any, Self

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.foundation.torch_internals import check_value, instance_for_expand
from probvae.models.likelihoods.base import Likelihood, check_counts
from probvae.models.stable_densities import deviance, stirling_error


class PoissonLikelihood(Likelihood, name="poisson"):
    r"""Independent Poisson counts; the decoder gives log-rates.

    .. math:: \log p(x|z) = \sum_i x_i \log \mu_i - \mu_i - \log x_i!, \qquad \mu = e \exp f(z)

    with an exposure e for each datum, by default 1 (``vae.given(exposure=...)``, ``fit(..., exposure=...)``).
    Raises :class:`~probvae.errors.SupportError` for data that are not counts.
    Source: McCullagh and Nelder (1989), "Generalized Linear Models", section 6.2.

    >>> import torch
    >>> PoissonLikelihood(data_dim=3)(torch.zeros(5, 3)).mean[0]
    tensor([1., 1., 1.])
    """

    measure = "probability"

    takes_exposure = True

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return LogPoisson(self.exposed(parameters)).to_event(1)

    def check_support(self, x: Tensor) -> None:
        check_counts(x, "a Poisson likelihood")

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3)


class LogPoisson(dist.Poisson):
    r"""Poisson by its log-rate: finite where the rate underflows, minus infinity (not NaN) where it overflows.

    .. math:: \log p(x) = -\tfrac12 \log 2\pi x - \epsilon(x) - x\, (\delta - \log(1 + \delta)), \qquad
              \delta = \frac{\mu - x}{x}

    with Stirling's error epsilon, in float64: the three terms x log mu, mu and log x! of the textbook are as large as
    x log x, and their sum is of order log x. The result has the dtype of the log-rate.
    Source: Loader (2000), "Fast and accurate computation of binomial probabilities".
    """

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.exp(), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "LogPoisson":
        new = instance_for_expand(self, LogPoisson, _instance)
        new.log_rate = self.log_rate.expand(batch_shape)
        return super().expand(batch_shape, new)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p (..., D) of the counts ``value`` (..., D)."""
        check_value(self, value)
        count, log_rate = value.double(), self.log_rate.double()
        rate, some = log_rate.exp(), count.clamp(min=1)
        distance = deviance((rate - some) / some, log_rate - some.log())
        spread = 0.5 * (2 * math.pi * some).log() + stirling_error(some)
        return torch.where(count > 0, -spread - some * distance, -rate).to(self.log_rate.dtype)
