"""Counts whose variance is their mean."""

from typing import Self

from pyro import distributions as dist
from torch import Tensor

from probvae.models.likelihoods._counts import check_counts
from probvae.models.likelihoods.base import Likelihood


class PoissonLikelihood(Likelihood, name="poisson"):
    r"""Independent Poisson counts; the decoder gives log-rates.

    .. math:: \log p(x|z) = \sum_i x_i \log \mu_i - \mu_i - \log x_i!, \qquad \mu = e \exp f(z)

    with an exposure e for each datum, one unless it is given (``vae.given(exposure=...)``, ``fit(..., exposure=...)``).
    Raises :class:`~probvae.errors.SupportError` for data that are not counts.
    Source: McCullagh and Nelder (1989), "Generalized Linear Models", section 6.2.

    >>> import torch
    >>> PoissonLikelihood(data_dim=3)(torch.zeros(5, 3)).mean[0]
    tensor([1., 1., 1.])
    """

    takes_exposure = True

    def distribution(self, parameters: Tensor) -> dist.TorchDistribution:
        return dist.Poisson(self.exposed(parameters).exp()).to_event(1)

    def check_support(self, x: Tensor) -> None:
        check_counts(x, "a Poisson likelihood")

    @classmethod
    def example(cls) -> Self:
        return cls(data_dim=3)
