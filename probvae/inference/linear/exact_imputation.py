"""Missing entries of x in closed form."""

from typing import NamedTuple

import torch
from torch import Tensor

from probvae.errors import ShapeError
from probvae.foundation.checks import check_matrix
from probvae.inference.linear.closed_form_model import linear_gaussian
from probvae.inference.linear.exact import check_mask, exact_posterior, posterior_moments, rows_at_once
from probvae.models import LatentModel


class Imputation(NamedTuple):
    """E[x | observed part] (N, D) in the units of x, and the variance of each entry (N, D), zero where observed."""

    mean: Tensor
    variance: Tensor


def impute_exact(model: LatentModel, x: Tensor, mask: Tensor) -> Imputation:
    r"""E[x_m | x_o] and the variances of the missing entries, of a linear model with Gaussian noise.

    .. math:: E[x_m|x_o] = b_m + W_m E[z|x_o], \qquad
              \operatorname{Var}[x_i|x_o] = c_i + w_i^T \operatorname{Cov}[z|x_o] w_i

    Equal to the conditional of the joint Gaussian, C_mo C_oo^-1 (x_o - b_o), at O(N D d^2).

    Parameters: ``x`` (N, D), whose missing entries are not read (NaN is fine); ``mask`` (N, D) of booleans, True where
    observed. ``mean`` keeps the observed entries. The variance includes the noise c: it is that of x, not of W z + b.
    The covariance between missing entries is :func:`conditional_covariance`, a datum at a time, because it is as large
    as the square of the number missing.

    Raises what :func:`~probvae.inference.exact_posterior` raises.
    Source: Bishop (2006), equations 2.81 and 2.82.

    >>> from probvae.models import LinearGaussianModel
    >>> model = LinearGaussianModel(torch.tensor([[1.0], [2.0]]), variance=1.0)
    >>> mean, variance = impute_exact(model, torch.tensor([[1.0, float("nan")]]), torch.tensor([[True, False]]))
    >>> mean.round(decimals=4), variance
    (tensor([[1., 1.]]), tensor([[0., 3.]]))
    """
    z_mean, z_covariance = posterior_moments(exact_posterior(model, x, mask))
    parts = linear_gaussian(model)
    mean, variance = parts.bias + z_mean @ parts.weight.mT, parts.variance + _projected(z_covariance, parts.weight)
    return Imputation(torch.where(mask, x.to(mean), mean), torch.where(mask, 0, variance))


def conditional_covariance(model: LatentModel, x: Tensor, mask: Tensor) -> Tensor:
    r"""Cov[x_m | x_o] = diag(c_m) + W_m Cov[z|x_o] W_m^T (M, M) of the M missing entries of one datum.

    Parameters: ``x`` (D,) and ``mask`` (D,), True where observed; rows and columns are the missing entries in order.
    In squared units of x. Raises :class:`~probvae.errors.ShapeError` for more than one datum, and otherwise what
    :func:`~probvae.inference.exact_posterior` raises. Source: Bishop (2006), equation 2.82.

    >>> from probvae.models import LinearGaussianModel
    >>> model = LinearGaussianModel(torch.tensor([[1.0], [2.0], [0.0]]), variance=1.0)
    >>> conditional_covariance(model, torch.zeros(3), torch.tensor([True, False, False]))
    tensor([[3., 0.],
            [0., 1.]])
    """
    if x.ndim != 1:
        raise ShapeError(f"x: expected one datum of shape (D,), got {tuple(x.shape)}. Pass x[n] and mask[n].")
    check_matrix(x[None], model.data_dim)
    check_mask(mask, x)
    z_covariance = posterior_moments(exact_posterior(model, x[None], mask[None]))[1][0]
    parts = linear_gaussian(model)
    weight = parts.weight[~mask]
    return torch.diag(parts.variance[~mask]) + weight @ z_covariance @ weight.mT


def _projected(covariance: Tensor, weight: Tensor) -> Tensor:
    """w_i^T S_n w_i (N, D) for S (N, d, d) and W (D, d)."""
    chunks = covariance.split(rows_at_once(weight.numel(), weight))
    return torch.cat([((weight @ rows) * weight).sum(-1) for rows in chunks])
