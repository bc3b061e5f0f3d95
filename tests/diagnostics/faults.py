"""Exact posteriors with one fault put in on purpose, for the diagnostics to find.

``faulty(vae, name)`` is the VAE with the fault of that name in its guide, which must be exact: an ``ExactGuide``, or
the ``FoldedGuide`` of this file. The VAEs at the end are those on which the faults show.
"""

from collections.abc import Callable
from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints

import probvae
from probvae.inference import ExactGuide, Guide
from probvae.models import GaussianLikelihood, LatentModel, LinearGaussianModel, MixturePrior, StandardNormalPrior

Posterior = dist.TorchDistribution


class FaultyGuide(Guide):
    """What ``fault`` makes of a guide's distribution."""

    def __init__(self, vae: probvae.VAE, fault: str) -> None:
        super().__init__(vae.guide.latent_dim)
        self.guide, self.fault = vae.guide, FAULTS[fault]
        self._model = (vae.model,)  # in a tuple: the parameters are the model's

    def distribution(self, x: Tensor) -> Posterior:
        return self.fault(self.guide, self._model[0], x)

    @classmethod
    def example(cls) -> Self:
        return cls(correlated_vae(), "prior")


def faulty(vae: probvae.VAE, name: str) -> probvae.VAE:
    """The VAE with the fault ``name`` (a key of ``FAULTS``) in its exact guide."""
    return probvae.VAE(vae.model, FaultyGuide(vae, name))


def affine(shift: float = 0.0, factor: float = 1.0) -> Callable[[Guide, LatentModel, Tensor], Posterior]:
    """z -> m + factor (z - m) + shift s, m and s the posterior's mean and standard deviations."""

    def fault(guide: Guide, model: LatentModel, x: Tensor) -> Posterior:
        p = guide.distribution(x)
        normals = p.component_distribution if isinstance(p, dist.MixtureSameFamily) else p
        mean, scale = (_like(value, normals.loc) for value in (p.mean, p.variance.sqrt()))
        moved = mean + factor * (normals.loc - mean) + shift * scale
        return _with_normals(p, dist.MultivariateNormal(moved, scale_tril=factor * normals.scale_tril))

    return fault


def _uncorrelated(guide: Guide, model: LatentModel, x: Tensor) -> Posterior:
    """The same means and standard deviations, no correlation."""
    p = guide.distribution(x)
    normals = p.component_distribution if isinstance(p, dist.MixtureSameFamily) else p
    return _with_normals(p, dist.MultivariateNormal(normals.loc, torch.diag_embed(normals.variance)))


def _one_mode(guide: Guide, model: LatentModel, x: Tensor) -> Posterior:
    """The first component of a mixture, the positive half of a folded posterior."""
    p = guide.distribution(x)
    if isinstance(p, Folded):
        return Folded(p.loc, p.scale, one_mode=True)
    return dist.MultivariateNormal(
        p.component_distribution.loc[:, 0], scale_tril=p.component_distribution.scale_tril[:, 0]
    )


def _collapsed(guide: Guide, model: LatentModel, x: Tensor) -> Posterior:
    """The first latent of a normal posterior as in the prior N(0, 1), independent of the others."""
    p = guide.distribution(x)
    loc, covariance = p.loc.clone(), p.covariance_matrix.clone()
    loc[:, 0], covariance[:, 0], covariance[:, :, 0] = 0, 0, 0
    covariance[:, 0, 0] = 1
    return dist.MultivariateNormal(loc, covariance)


def _prior(guide: Guide, model: LatentModel, x: Tensor) -> Posterior:
    return model.prior().expand((len(x),))


def _shuffled(guide: Guide, model: LatentModel, x: Tensor) -> Posterior:
    """Each datum gets the posterior of another one."""
    return guide.distribution(x.roll(1, dims=0))


def _like(value: Tensor, loc: Tensor) -> Tensor:
    return value.unsqueeze(-2) if loc.ndim > value.ndim else value


def _with_normals(p: Posterior, normals: Posterior) -> Posterior:
    return dist.MixtureSameFamily(p.mixture_distribution, normals) if isinstance(p, dist.MixtureSameFamily) else normals


FAULTS: dict[str, Callable[[Guide, LatentModel, Tensor], Posterior]] = {
    "mean + 0.3 sd": affine(shift=0.3),
    "mean + 1 sd": affine(shift=1.0),
    "sd x 0.7": affine(factor=0.7),
    "sd x 1.4": affine(factor=1.4),
    "no correlation": _uncorrelated,
    "one mode dropped": _one_mode,
    "prior": _prior,
    "one latent collapsed": _collapsed,
    "shuffled": _shuffled,
}


def correlated_vae(rho: float = 0.8) -> probvae.VAE:
    """A posterior of two latents whose correlation is ``rho``, with both standard deviations 0.5, for every x."""
    covariance = 0.25 * torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    information = torch.linalg.inv(covariance) - torch.eye(2, dtype=torch.float64)  # W^T W / c
    weight = torch.linalg.cholesky(information).T
    model = LinearGaussianModel(weight, variance=1.0)
    return probvae.VAE(model, ExactGuide(model))


def bimodal_vae() -> probvae.VAE:
    """Two modes of z_1, at -2 and 2, which x does not tell apart; x tells z_2 up to 0.45 of its standard deviation."""
    prior = MixturePrior(2, 2).double()
    with torch.no_grad():
        prior.loc.copy_(torch.tensor([[-2.0, 0.0], [2.0, 0.0]]))
        prior.log_scale[:, 0] = -0.7
    model = LinearGaussianModel(torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64), variance=0.25, prior=prior)
    return probvae.VAE(model, ExactGuide(model))


class AbsDecoder(nn.Module):
    """f(z) = |z|: x does not tell z from -z."""

    latent_dim = num_outputs = 1

    def forward(self, z: Tensor) -> Tensor:
        return z.abs()


class Folded(dist.TorchDistribution):
    """p(z|x) for f(z) = |z|: a normal ``loc``, ``scale`` (N,) cut off at zero, with a sign; event_shape (1,)."""

    support = constraints.real_vector
    arg_constraints: dict = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, scale: Tensor, one_mode: bool = False) -> None:
        self.loc, self.scale, self.one_mode = loc, scale, one_mode
        self.standard = dist.Normal(torch.zeros_like(loc), 1.0)
        super().__init__(loc.shape, (1,), validate_args=False)

    @property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """E|z| and E z^2."""
        ratio = self.loc / self.scale
        hazard = (self.standard.log_prob(ratio) - self.standard.cdf(ratio).log()).exp()
        first = self.loc + self.scale * hazard
        return first, self.loc * first + self.scale.square()

    @property
    def mean(self) -> Tensor:
        return (self._moments[0] if self.one_mode else torch.zeros_like(self.loc)).unsqueeze(-1)

    @property
    def variance(self) -> Tensor:
        return self._moments[1].unsqueeze(-1) - self.mean.square()

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = sample_shape + self.batch_shape
        above = torch.rand(shape, dtype=self.loc.dtype) * self.standard.cdf(self.loc / self.scale)
        size = self.loc - self.scale * self.standard.icdf(above)
        sign = 1 - 2 * torch.randint(2, shape) * (not self.one_mode)
        return (sign * size).unsqueeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        z = value.squeeze(-1)
        beyond = (self.standard.cdf(self.loc / self.scale) * self.scale).log()
        log_p = self.standard.log_prob((z.abs() - self.loc) / self.scale) - beyond
        if self.one_mode:
            return torch.where(z > 0, log_p, -torch.inf)
        return log_p - torch.log(torch.tensor(2.0))


class FoldedGuide(Guide):
    """The exact posterior of the model of :func:`folded_vae`."""

    def __init__(self, variance: float) -> None:
        super().__init__(1)
        self.variance = variance

    def distribution(self, x: Tensor) -> Posterior:
        scale = (self.variance / (1 + self.variance)) ** 0.5
        loc = x[:, 0] / (1 + self.variance)
        return Folded(loc, torch.full_like(loc, scale))

    @classmethod
    def example(cls) -> Self:
        return cls(0.1)


def folded_vae(variance: float = 0.1) -> probvae.VAE:
    """z ~ N(0, 1), x ~ N(|z|, c), with its exact posterior."""
    model = LatentModel(StandardNormalPrior(1), AbsDecoder(), GaussianLikelihood(1, variance)).double()
    return probvae.VAE(model, FoldedGuide(variance))
