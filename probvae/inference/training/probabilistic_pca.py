"""Probabilistic PCA: the maximum of the likelihood in closed form."""

import math

import torch
from torch import Tensor

from probvae.errors import ArgumentError, DataError
from probvae.foundation.checks import check_count, check_finite, check_matrix, check_positive
from probvae.inference.guides import ExactGuide
from probvae.inference.pair import VAE
from probvae.models import LinearGaussianModel


def fit_probabilistic_pca(x: Tensor, latent_dim: int, *, trainable: bool = False) -> VAE:
    r"""The linear VAE of largest likelihood, in closed form: probabilistic PCA, with the exact posterior as its guide.

    .. math:: b = \bar x, \qquad c = \frac{1}{D - d} \sum_{j > d} l_j, \qquad
              W = U_d (\operatorname{diag}(l_1 \dots l_d) - c I)^{1/2}

    with l_1 >= l_2 ... the eigenvalues of the sample covariance **over N** (not N - 1) and U_d the first d
    eigenvectors, each with its largest entry positive. The rotation R of the paper is I, so that the columns of W are
    orthogonal, the posterior covariance is diag(c / l_j), and a diagonal guide is exact too.
    It costs one singular value decomposition of x, in float64; no D x D matrix is formed.

    Parameters: ``x`` (N, D); ``latent_dim`` d below D; ``trainable`` whether W, b and c are to be trained further.
    The model has the dtype and device of x; c is a variance in squared units of x.

    Raises :class:`~probvae.errors.ArgumentError` for d >= D, and :class:`~probvae.errors.DataError` where d
    dimensions explain the data wholly: c would be zero and the likelihood has no maximum.
    Source: Tipping and Bishop (1999), "Probabilistic Principal Component Analysis", equations 7 and 8.

    >>> x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # covariance diag(2, 1/2)
    >>> vae = fit_probabilistic_pca(x, latent_dim=1)
    >>> vae.model.decoder.weight.T, vae.model.likelihood.fixed_variance
    (tensor([[1.2247, 0.0000]]), tensor(0.5000))
    """
    check_matrix(x)
    check_finite(x)
    _check_latent_dim(latent_dim, x.shape[1])
    mean = x.double().mean(0)
    centred = x.double() - mean
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    eigenvalues = singular.square() / len(x)
    variance = eigenvalues[latent_dim:].sum() / (x.shape[1] - latent_dim)
    _check_variance(variance, centred, x, latent_dim)
    directions = _with_positive_peak(rows[:latent_dim])
    weight = (eigenvalues[:latent_dim] - variance).clamp(min=0).sqrt() * directions.T
    model = LinearGaussianModel(weight.to(x), mean.to(x), variance.to(x), trainable=trainable)
    return VAE(model, ExactGuide(model))


def ppca_max_elbo(eigenvalues: Tensor, variance: float, latent_dim: int | None = None) -> Tensor:
    r"""The largest mean ELBO (and evidence) that a linear VAE reaches at a fixed c, in nats per datum.

    .. math:: -\tfrac12 \sum_{j=1}^D \Big[ \log v_j + \frac{l_j}{v_j} + \log 2\pi \Big], \qquad
              v_j = \max(l_j, c) \text{ for } j \le d, \quad c \text{ for } j > d

    ``eigenvalues`` l (D,) are all those of the sample covariance over N, zeros too, in any order; ``latent_dim`` d is D
    if it is not given. A direction with l_j <= c is off at the optimum: its column of W is zero and its posterior is
    the prior, which is no fault of the training (:func:`num_active_directions` counts the others).
    A weight beta on the KL is the same with c beta in the place of c.

    Raises :class:`~probvae.errors.ArgumentError` for negative eigenvalues or a variance that is not positive.
    Source: Lucas, Tucker, Grosse and Norouzi (2019), arXiv:1911.02469, section 4.

    >>> ppca_max_elbo(torch.tensor([2.0, 0.5]), variance=1.0)
    tensor(-2.9345)
    """
    c, ordered = _fixed_variance(eigenvalues, variance), eigenvalues.sort(descending=True).values
    reach = len(ordered) if latent_dim is None else latent_dim
    modelled = torch.cat([ordered[:reach].clamp(min=c), torch.full_like(ordered[reach:], c)])
    return -0.5 * (modelled.log() + ordered / modelled + math.log(2 * math.pi)).sum()


def num_active_directions(eigenvalues: Tensor, variance: float) -> int:
    r"""How many latent dimensions a linear VAE can use at a fixed c: the number of ``eigenvalues`` (D,) with l_j > c.

    Arguments, errors and source are those of :func:`ppca_max_elbo`.

    >>> num_active_directions(torch.tensor([2.0, 0.5]), variance=1.0)
    1
    """
    return int((eigenvalues > _fixed_variance(eigenvalues, variance)).sum())


def _check_latent_dim(latent_dim: int, data_dim: int) -> None:
    check_count(latent_dim, "latent_dim")
    if latent_dim >= data_dim:
        raise ArgumentError(
            f"latent_dim: expected less than the data's {data_dim} columns, got {latent_dim}: no variance is left for "
            f"the noise. Use latent_dim <= {data_dim - 1}."
        )


def _check_variance(variance: Tensor, centred: Tensor, x: Tensor, latent_dim: int) -> None:
    # Rounding to the dtype of x leaves a variance of at most eps^2 x^2 / 12 in a direction that the data do not have,
    # and the decomposition in float64 its own; neither grows with N as a sum would.
    of_data = torch.finfo(x.dtype).eps ** 2 * x.double().square().mean() / 10
    of_decomposition = torch.finfo(torch.float64).eps ** 2 * max(x.shape) * centred.square().mean()
    rounding = of_data + of_decomposition
    if variance <= rounding:
        raise DataError(
            f"x: expected data of more than latent_dim={latent_dim} directions, and {latent_dim} explain them wholly: "
            "the noise variance c would be zero, and the likelihood has no maximum there. "
            "Lower latent_dim, or give more rows."
        )


def _with_positive_peak(directions: Tensor) -> Tensor:
    """A singular vector's sign is arbitrary: choose it so that the fit does not depend on the LAPACK at hand."""
    peak = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return torch.where(peak < 0, -directions, directions)


def _fixed_variance(eigenvalues: Tensor, variance: float) -> float:
    check_positive(variance, "variance")
    if eigenvalues.ndim != 1 or not (eigenvalues >= 0).all():
        raise ArgumentError("eigenvalues: expected a vector of numbers >= 0. Pass those of the sample covariance.")
    return variance
