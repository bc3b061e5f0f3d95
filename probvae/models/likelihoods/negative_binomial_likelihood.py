"""Counts whose variance is larger than their mean."""

from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.nn.functional import logsigmoid

from probvae.foundation.torch_internals import check_value
from probvae.models.likelihoods._scale import PositiveParameter
from probvae.models.likelihoods.base import Likelihood, check_counts

# Stirling's series with four terms is exact to 1e-15 from this number on
_LARGE = 20.0


class NegativeBinomialLikelihood(Likelihood, name="negative-binomial"):
    r"""Independent overdispersed counts; the decoder gives log-means.

    .. math:: p(x_i|z) = \frac{\Gamma(x_i + \theta)}{\Gamma(\theta)\, x_i!}
              \Big( \frac{\theta}{\theta + \mu_i} \Big)^\theta \Big( \frac{\mu_i}{\theta + \mu_i} \Big)^{x_i}, \qquad
              \mu = e \exp f(z), \qquad \operatorname{Var}[x_i|z] = \mu_i + \mu_i^2 / \theta

    with an exposure e for each datum, by default 1. ``dispersion`` is the *inverse* dispersion theta, as in
    scvi-tools: a number, ``"learned"`` or ``"per-dimension"``; large values approach a Poisson. In torch's terms
    ``total_count`` is theta and ``logits`` is log mu - log theta.
    Raises :class:`~probvae.errors.SupportError` for data that are not counts.
    Source: Lopez et al. (2018), "Deep generative modeling for single-cell transcriptomics", supplementary note 3.

    >>> import torch
    >>> p = NegativeBinomialLikelihood(data_dim=3, dispersion=2.0)(torch.zeros(5, 3))
    >>> p.mean[0, 0].item(), p.variance[0, 0].item()
    (1.0, 1.5)
    """

    measure = "probability"

    takes_exposure = True

    def __init__(
        self,
        data_dim: int,
        dispersion: float | str = "learned",
        initial_dispersion: float = 10.0,
        minimum_dispersion: float = 1e-3,
    ) -> None:
        super().__init__(data_dim)
        self.dispersion = PositiveParameter("dispersion", dispersion, data_dim, initial_dispersion, minimum_dispersion)

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        theta = self.dispersion.value()
        return StableNegativeBinomial(theta, logits=self.exposed(parameters) - theta.log()).to_event(1)

    def own_parameters(self) -> dict[str, Tensor]:
        return {"dispersion": self.dispersion.value()}

    def check_support(self, x: Tensor) -> None:
        check_counts(x, "a negative-binomial likelihood")

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3, dispersion="per-dimension", initial_dispersion=2.0)


class StableNegativeBinomial(dist.NegativeBinomial):
    """torch's distribution, exact for a large ``total_count`` too, where its differences of log-gammas lose digits."""

    def log_prob(self, value: Tensor) -> Tensor:
        """log p (..., D) of the counts ``value`` (..., D)."""
        check_value(self, value)
        # log(theta mu / (theta + mu)), which tends to log mu as theta grows
        log_rate = self.total_count.log() + logsigmoid(self.logits)
        terms = value * log_rate + self.total_count * logsigmoid(-self.logits)
        return terms + _log_rising(value, self.total_count) - (value + 1).lgamma()


def _log_rising(x: Tensor, theta: Tensor) -> Tensor:
    """log Gamma(x + theta) - log Gamma(theta) - x log theta, which vanishes as theta grows."""
    large = theta.clamp(min=_LARGE)
    by_series = (large + x - 0.5) * torch.log1p(x / large) - x + _stirling(large + x) - _stirling(large)
    direct = (x + theta).lgamma() - theta.lgamma() - x * theta.log()
    return torch.where(theta >= _LARGE, by_series, direct)


def _stirling(y: Tensor) -> Tensor:
    """log Gamma(y) - (y - 1/2) log y + y - log(2 pi)/2, for y >= 20."""
    inverse = y.reciprocal()
    square = inverse.square()
    return inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
