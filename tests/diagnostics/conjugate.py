"""Exact posteriors of counts and of binary data: gamma priors on rates and beta priors on probabilities.

z = log of a rate, or the logit of a probability; the columns of x are shared out among the latents. All is in closed
form, skewed where there are few counts, and costs next to nothing.
"""

from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints

import probvae
from probvae.inference import Guide
from probvae.models import BernoulliLikelihood, LatentModel, PoissonLikelihood
from probvae.models.priors import DistributionPrior

_SHAPE, _RATE = 2.0, 1.5
_COLUMNS = 3  # for each latent


class LogGammas(dist.TorchDistribution):
    """log g for g ~ Gamma(``shape``, ``rate``), (..., d)."""

    support = constraints.real_vector
    arg_constraints: dict = {}  # noqa: RUF012

    def __init__(self, shape: Tensor, rate: Tensor) -> None:
        self.shape_parameter, self.rate = torch.broadcast_tensors(shape, rate)
        self.gammas = dist.Gamma(self.shape_parameter, self.rate).to_event(1)
        super().__init__(self.shape_parameter.shape[:-1], self.shape_parameter.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.shape_parameter.digamma() - self.rate.log()

    @property
    def variance(self) -> Tensor:
        return torch.polygamma(1, self.shape_parameter)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.gammas.sample(sample_shape).log()

    def log_prob(self, value: Tensor) -> Tensor:
        return self.gammas.log_prob(value.exp()) + value.sum(-1)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "LogGammas":
        size = (*batch_shape, self.event_shape[0])
        return LogGammas(self.shape_parameter.expand(size), self.rate.expand(size))


class LogitBetas(LogGammas):
    """The logit of p ~ Beta(``shape``, ``rate``), (..., d): the difference of two log gammas."""

    @property
    def mean(self) -> Tensor:
        return self.shape_parameter.digamma() - self.rate.digamma()

    @property
    def variance(self) -> Tensor:
        return torch.polygamma(1, self.shape_parameter) + torch.polygamma(1, self.rate)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        first, second = (dist.Gamma(part, torch.ones_like(part)) for part in (self.shape_parameter, self.rate))
        return first.sample(sample_shape).log() - second.sample(sample_shape).log()

    def log_prob(self, value: Tensor) -> Tensor:
        a, b = self.shape_parameter, self.rate
        log_beta = a.lgamma() + b.lgamma() - (a + b).lgamma()
        sigmoid = nn.functional.logsigmoid
        return (a * sigmoid(value) + b * sigmoid(-value) - log_beta).sum(-1)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "LogitBetas":
        size = (*batch_shape, self.event_shape[0])
        return LogitBetas(self.shape_parameter.expand(size), self.rate.expand(size))


class Shared(nn.Module):
    """Each z_j for columns of its own."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim, self.num_outputs = latent_dim, _COLUMNS * latent_dim

    def forward(self, z: Tensor) -> Tensor:
        return z.repeat_interleave(_COLUMNS, -1)


class ConjugateGuide(Guide):
    """The exact posterior of :func:`count_vae` or :func:`binary_vae`."""

    def __init__(self, latent_dim: int, binary: bool) -> None:
        super().__init__(latent_dim)
        self.binary = binary

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        total = x.reshape(len(x), self.latent_dim, _COLUMNS).sum(-1)
        if self.binary:
            return LogitBetas(_SHAPE + total, _RATE + _COLUMNS - total)
        return LogGammas(_SHAPE + total, torch.full_like(total, _RATE + _COLUMNS))

    @classmethod
    def example(cls) -> Self:
        return cls(1, False)


def _vae(latent_dim: int, binary: bool) -> probvae.VAE:
    shape, rate = (torch.full((latent_dim,), value, dtype=torch.float64) for value in (_SHAPE, _RATE))
    prior = DistributionPrior((LogitBetas if binary else LogGammas)(shape, rate))
    likelihood = (BernoulliLikelihood if binary else PoissonLikelihood)(_COLUMNS * latent_dim)
    model = LatentModel(prior, Shared(latent_dim), likelihood).double()
    return probvae.VAE(model, ConjugateGuide(latent_dim, binary))


def count_vae(latent_dim: int) -> probvae.VAE:
    """Counts x ~ Poisson(exp z), exp z ~ Gamma(2, 1.5), with their exact posterior."""
    return _vae(latent_dim, binary=False)


def binary_vae(latent_dim: int) -> probvae.VAE:
    """x ~ Bernoulli(p), z the logit of p ~ Beta(2, 1.5), with the exact posterior."""
    return _vae(latent_dim, binary=True)
