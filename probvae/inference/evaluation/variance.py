"""The decoder variance c in closed form."""

from typing import cast

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from probvae.errors import ArgumentError
from probvae.foundation.checks import check_positive
from probvae.foundation.row_noise import RowNoise, row_keys
from probvae.foundation.seed import ambient_seed
from probvae.inference.evaluation.bounds import posterior_mean
from probvae.inference.evaluation.row_tiles import over_tiles
from probvae.inference.linear.exact import posterior_moments
from probvae.inference.pair import VAE, check_data
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder

# Enough data for a standard error below the changes that an epoch makes
VARIANCE_SUBSET = 1024


def optimal_variance(vae: VAE, x: Tensor) -> float:
    r"""The c that maximises the mean ELBO of a Gaussian likelihood with one shared c.

    .. math:: c^* = \frac1D E_x E_{z \sim q_x} \lVert x - f(z) \rVert^2

    The expectation over q_x matters: the squared error at the posterior mean alone is too small by the trace term
    tr(W^T W S)/D. It is in closed form for a linear decoder under a normal guide or a mixture of normals, and one draw
    a datum elsewhere. A variance, in squared units of x.
    Raises :class:`~probvae.errors.ArgumentError` for a likelihood without one.
    Source: Rybkin, Daniilidis and Levine (2021), arXiv:2006.13202, equation 8.

    >>> import torch, probvae
    >>> optimal_variance(probvae.VAE.example(), torch.ones(5, 3)) > 0
    True
    """
    error, num_observed = squared_error_sums(vae, x).tolist()
    return error / num_observed


def squared_error_sums(vae: VAE, x: Tensor) -> Tensor:
    """E ||x - f(z)||^2 summed over the data, and over how many numbers that is, in float64: c* is their ratio."""
    check_data(vae, x)
    seed = ambient_seed()

    def of_tile(vae: VAE, rows: Tensor) -> Tensor:
        return expected_squared_error(vae.model, vae.guide.distribution(rows), rows, seed)

    errors = over_tiles(of_tile, vae, x)
    return torch.stack([errors.double().sum(), (~x.isnan()).sum().double()])


def equivalent_variance(beta: float, variance: float) -> float:
    r"""The decoder variance c' = beta c whose ELBO the weight beta on the KL amounts to.

    .. math:: E_q \Big[ -\frac{\lVert x - f(z) \rVert^2}{2c} \Big] - \beta\, \mathrm{KL} =
              \beta \Big( E_q \Big[ -\frac{\lVert x - f(z) \rVert^2}{2 \beta c} \Big] - \mathrm{KL} \Big)

    so for a Gaussian likelihood of fixed c both have the same optimum in decoder and guide. In squared units of x.
    Raises :class:`~probvae.errors.ArgumentError` for a number that is not positive.
    Source: Lucas, Tucker, Grosse and Norouzi (2019), arXiv:1911.02469, section 5.

    >>> equivalent_variance(beta=4.0, variance=0.5)
    2.0
    """
    check_positive(beta, "beta")
    check_positive(variance, "variance")
    return beta * variance


def expected_squared_error(model: LatentModel, q: Distribution, x: Tensor, seed: int = 0) -> Tensor:
    """E_{z~q} ||x - f(z)||^2 (N,) for ``x`` (N, D): closed form for a linear decoder and a normal q, else one draw.

    A row's draw depends on its content and the ``seed``.
    """
    covariance = _covariance(q)
    # a subclass with a forward of its own need not be linear
    if type(model.decoder).forward is not LinearDecoder.forward or covariance is None:
        with RowNoise(row_keys(x), seed):
            z = q.sample(torch.Size((1,)))[0]
        return (x - _mean(model, z)).square().nansum(-1)
    weight = cast(LinearDecoder, model.decoder).weight[: model.data_dim]
    observed = ~x.isnan()
    if observed.all():
        trace = torch.einsum("ij,nij->n", weight.mT @ weight, covariance)
    else:
        trace = torch.einsum("nd,di,dj,nij->n", observed.to(weight), weight, weight, covariance)
    return (x - _mean(model, q.mean)).square().nansum(-1) + trace


def _mean(model: LatentModel, z: Tensor) -> Tensor:
    likelihood = model.likelihood
    if not isinstance(likelihood, GaussianLikelihood):
        raise ArgumentError(
            f"likelihood: expected a GaussianLikelihood, which has a variance, got {type(likelihood).__name__}."
        )
    return likelihood.mean(model.decode(z))


def _covariance(q: Distribution) -> Tensor | None:
    if isinstance(q, MultivariateNormal):
        return q.covariance_matrix
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return torch.diag_embed(q.variance)
    if isinstance(q, dist.MixtureSameFamily) and isinstance(q.component_distribution, MultivariateNormal):
        return posterior_moments(q)[1]
    return None


@torch.no_grad()
def outputs_for_variance(vae: VAE, x: Tensor) -> Tensor:
    """The decoder's outputs at the posterior means of enough rows of ``x`` (N, D), if they give c; else none."""
    likelihood = vae.model.likelihood
    if getattr(likelihood, "mode", None) != "per-datum":
        # a guide without closed form takes a thousand draws a datum for its means
        return x.new_empty(0, likelihood.num_outputs)
    part, rows = vae.at(slice(VARIANCE_SUBSET)), x[:VARIANCE_SUBSET]
    outputs: Tensor = part.model.decode(posterior_mean(part, rows))
    return outputs


def floor_warning(vae: VAE, x: Tensor) -> str | None:
    """A warning of learned variances or scales that sit on their floor at ``x`` (N, D); None where none does."""
    return vae.model.likelihood.floor_warning(outputs_for_variance(vae, x))
