"""Counts whose variance is their mean."""

from typing import Any, Self

from pyro import distributions as dist
from torch import Tensor

from probvae.foundation.torch_internals import check_value, instance_for_expand
from probvae.models.likelihoods.base import Likelihood, check_counts


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
    """Poisson by its log-rate: finite where the rate underflows, minus infinity (not NaN) where it overflows."""

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
        return value * self.log_rate - self.rate - (value + 1).lgamma()
