"""The bound, its parts, and what else is computed from q_x and p(x|z) for each datum."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from probvae.foundation.checks import check_count, check_finite, check_matrix
from probvae.foundation.seed import ambient_seed
from probvae.inference.densities.kl import analytic_kl
from probvae.inference.densities.moments import mean_and_variance
from probvae.inference.densities.non_finite import raise_as_non_finite
from probvae.inference.densities.traces import LogWeights
from probvae.inference.evaluation.memory import limited_memory
from probvae.inference.evaluation.row_tiles import drawn_tiles, over_tiles
from probvae.inference.pair import VAE, check_data, check_num_rows


class Bound(NamedTuple):
    """The ELBO and its two parts, each (N,), in nats per datum: elbo = log_likelihood - kl."""

    elbo: Tensor
    log_likelihood: Tensor
    kl: Tensor


def elbo(vae: VAE, x: Tensor, num_samples: int = 1, *, memory_limit: int | None = None) -> Tensor:
    r"""The evidence lower bound of each datum, by Monte Carlo.

    .. math:: \widehat{\mathrm{ELBO}}(x_n) = \frac1S \sum_s \log p(x_n|z_s) + \log p(z_s) - \log q_{x_n}(z_s)

    ``x`` is (N, D); the result is (N,), in nats per datum, unbiased for the bound; no gradient is kept. The draws of a
    datum depend on its content and torch's seed, not on the other rows of ``x``: equal rows have equal draws.
    ``memory_limit`` is in bytes, see :func:`limited_memory`; memory does not grow with N or S beyond it.
    Raises :class:`~probvae.errors.ShapeError` or :class:`~probvae.errors.DataError` for data that do not fit, and
    :class:`~probvae.errors.NonFiniteError` where they overflow in the networks.
    Source: Kingma and Welling (2014), arXiv:1312.6114, equation 7.

    >>> import torch, probvae
    >>> elbo(probvae.VAE.example(), torch.zeros(5, 3)).shape
    torch.Size([5])
    """
    return bound(vae, x, num_samples, memory_limit=memory_limit).elbo


@raise_as_non_finite()
def bound(vae: VAE, x: Tensor, num_samples: int = 1, *, memory_limit: int | None = None) -> Bound:
    """:func:`elbo` of ``x`` (N, D) with its parts E log p(x|z) and KL(q_x || p), by the same draws; each (N,)."""
    check_count(num_samples, "num_samples")
    check_data(vae, x)
    seed = ambient_seed()
    with limited_memory(memory_limit), torch.no_grad():
        parts = [_mean_terms(rows, blocks, num_samples) for rows, blocks in drawn_tiles(vae, x, num_samples, seed)]
    log_likelihood, kl = torch.cat(parts, dim=1).to(x.dtype)
    return Bound(log_likelihood - kl, log_likelihood, kl)


def _mean_terms(rows: Tensor, blocks: Iterator[tuple[Tensor, LogWeights]], num_samples: int) -> Tensor:
    """E log p(x|z) and E log q(z) - log p(z) of each row, (2, N), in float64."""
    total = rows.new_zeros(2, len(rows), dtype=torch.float64)
    for _, terms in blocks:
        total[0] += terms.log_likelihood.sum(0)
        total[1] += (terms.log_guide - terms.log_prior).sum(0)
    return total / num_samples


def reconstruction_error(vae: VAE, x: Tensor) -> Tensor:
    """||x - E[x|z = E_q z]||^2 / D for each datum (N,), in squared units of x: the mean squared error.

    Where entries are missing it is the mean over those that were observed.
    """
    check_data(vae, x)
    return (x - reconstruct(vae, x)).square().nanmean(1)


@raise_as_non_finite()
def reconstruct(vae: VAE, x: Tensor) -> Tensor:
    """E[x | z] (N, D) at the guide's mean z = E_q[z], in the units of x (or the likelihood's other ``point``)."""
    z = posterior_mean(vae, x)
    return over_tiles(lambda vae, rows: vae.model.likelihood.point(vae.model.decode(rows)), vae, z)


@raise_as_non_finite()
def posterior_mean(vae: VAE, x: Tensor) -> Tensor:
    """E_q[z] (N, d), in prior standard deviations."""
    _check_input(vae, x)
    return over_tiles(lambda vae, rows: mean_and_variance(vae.guide.distribution(rows))[0], vae, x)


@raise_as_non_finite()
def posterior_scale(vae: VAE, x: Tensor) -> Tensor:
    """The standard deviation of each z_j under q_x, (N, d)."""
    _check_input(vae, x)
    return over_tiles(lambda vae, rows: mean_and_variance(vae.guide.distribution(rows))[1].sqrt(), vae, x)


@raise_as_non_finite()
def plug_in_loss(vae: VAE, x: Tensor) -> Tensor:
    r"""-log p(x | z = E_q z) + KL(q_x || p), (N,), in nats per datum: **not a bound** of -log p(x).

    It is printed as "test loss" by many notebooks. With the exact posterior of a linear model it lies below
    -log p(x) by tr(I - S)/2 nats, S the posterior covariance, so it is optimistic by up to d/2 nats.
    """
    check_data(vae, x)

    def loss(vae: VAE, rows: Tensor) -> Tensor:
        q = vae.guide.distribution(rows)
        log_likelihood = vae.model.likelihood(vae.model.decode(mean_and_variance(q)[0])).log_prob(rows)
        return analytic_kl(q, vae.model.prior().expand(q.batch_shape)) - log_likelihood

    return over_tiles(loss, vae, x)


def _check_input(vae: VAE, x: Tensor) -> None:
    """Raise unless the guide can read ``x``: grey values have a q_x, also where the likelihood wants binary ones."""
    check_matrix(x, vae.model.data_dim)
    check_num_rows(vae, len(x))
    check_finite(x.nan_to_num(nan=0.0) if vae.model.missing == "mask" else x)
