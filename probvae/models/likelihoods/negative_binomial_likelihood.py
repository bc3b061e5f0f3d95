"""Counts whose variance is larger than their mean."""

import math
from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.nn.functional import logsigmoid

from probvae.foundation.torch_internals import check_value
from probvae.models.likelihoods._scale import PositiveParameter
from probvae.models.likelihoods.base import Likelihood, check_counts
from probvae.models.stable_densities import deviance, stirling_error


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
    r"""torch's, whose density keeps its digits for large counts and a large ``total_count`` theta.

    .. math:: \log p(x) = \tfrac12 \log \frac{\theta}{2\pi x (x + \theta)} + \epsilon(x + \theta) - \epsilon(\theta)
              - \epsilon(x) - \theta\, \phi\Big( \frac{x - \mu}{\theta + \mu} \Big)
              - x\, \phi\Big( \frac{\theta (\mu - x)}{x (\theta + \mu)} \Big), \qquad
              \phi(\delta) = \delta - \log(1 + \delta)

    with Stirling's error epsilon, in float64; the result has the dtype of the logits.
    Source: Loader (2000), "Fast and accurate computation of binomial probabilities".
    """

    @property
    def mean(self) -> Tensor:
        """mu, (..., D)."""
        return (self.logits + self.total_count.log()).exp()

    @property
    def variance(self) -> Tensor:
        """mu + mu^2 / theta, (..., D)."""
        return self.mean * (1 + self.logits.exp())

    def log_prob(self, value: Tensor) -> Tensor:
        """log p (..., D) of the counts ``value`` (..., D)."""
        check_value(self, value)
        count, theta, logits = torch.broadcast_tensors(value.double(), self.total_count.double(), self.logits.double())
        some = count.clamp(min=1)
        # With x = r theta and mu = m theta both distances are ratios in which theta alone never overflows.
        relative, log_mass, log_rest = some / theta, logsigmoid(-logits), logsigmoid(logits)
        share = relative * log_mass.exp() - log_rest.exp()  # (x - mu) / (theta + mu)
        log_total = relative.log1p()  # log((x + theta) / theta)
        of_theta = theta * deviance(share, log_total + log_mass)
        of_count = some * deviance(-share / relative, log_total + log_rest - relative.log())
        errors = stirling_error(some + theta) - stirling_error(theta) - stirling_error(some)
        spread = 0.5 * (2 * math.pi * some).log() + 0.5 * log_total
        found = torch.where(count > 0, errors - spread - of_theta - of_count, theta * log_mass)
        return found.to(self.logits.dtype)
