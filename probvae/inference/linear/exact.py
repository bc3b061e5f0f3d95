"""The posterior and the evidence in closed form."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.errors import ArgumentError, NotLinearGaussianError, ShapeError
from probvae.foundation.checks import check_finite, check_matrix
from probvae.inference.linear.closed_form_model import GaussianMixture, LinearGaussian, linear_gaussian
from probvae.models import LatentModel

# bytes of the largest intermediate array
_CHUNK_BYTES = 256 * 2**20


def exact_posterior(model: LatentModel, x: Tensor, mask: Tensor | None = None) -> dist.TorchDistribution:
    r"""p(z|x) of a linear model with Gaussian noise, x = W z + b + N(0, diag(c)).

    .. math:: p(z|x) = \sum_k \tilde\pi_k N(\tilde m_k, \tilde S_k), \quad
              \tilde S_k = (S_k^{-1} + W^T C^{-1} W)^{-1}, \quad
              \tilde m_k = \tilde S_k (S_k^{-1} m_k + W^T C^{-1} (x - b)), \quad
              \tilde\pi_k \propto \pi_k N(x; W m_k + b, W S_k W^T + C)

    for the prior sum_k pi_k N(m_k, S_k) and C = diag(c). For the prior N(0, I) and one c it is
    N(M^-1 W^T (x - b), c M^-1) with M = W^T W + c I. It costs O(N D d + N K d^2 + K D d^2): no matrix is D x D.
    It is computed in float64 whatever the model's dtype is, and the precision's factor by a QR decomposition of
    (C^-1/2 W L; I), whose rounding is that of the square root of the precision: nearly equal columns of W at a tiny c
    lose nothing.

    Parameters
    ----------
    model
        A linear decoder, a Gaussian likelihood whose variance does not depend on z, and a prior that is Gaussian or a
        mixture of Gaussians.
    x
        (N, D); converted to the model's dtype.
    mask
        (N, D) of booleans, True where x was observed: the posterior given the observed part. What stands in x
        elsewhere, NaN included, is not read; a row with nothing observed has the prior as its posterior.
        With a mask it costs O(N D d^2 + N K d^3).

    The result has batch_shape (N,) and event_shape (d,): a ``MultivariateNormal``, or for a prior of more than one
    component a ``MixtureSameFamily`` of them. Gradients flow to the model's parameters.

    Raises :class:`~probvae.errors.NotLinearGaussianError`, which says what part of the model has no closed form,
    :class:`~probvae.errors.ShapeError` for a mask of another shape, and :class:`~probvae.errors.ArgumentError` where
    W W^T / c overflows.
    Source: Tipping and Bishop (1999), section 3.2; Bishop (2006), equations 2.113 to 2.117.

    >>> from probvae.models import LinearGaussianModel
    >>> model = LinearGaussianModel(torch.tensor([[1.0], [2.0]]), variance=1.0)
    >>> posterior = exact_posterior(model, torch.tensor([[1.0, 2.0]]))
    >>> posterior.mean, posterior.variance  # M = 6, W^T x = 5
    (tensor([[0.8333]]), tensor([[0.1667]]))
    """
    parts, data, dtype = _prepare(model, x, mask)
    components = _components(parts, data)
    means, factors = components.means.to(dtype), components.scale_trils.expand(len(x), -1, -1, -1).to(dtype)
    if len(parts.prior.log_weights) == 1:
        return dist.MultivariateNormal(means[:, 0], scale_tril=factors[:, 0])
    logits = parts.prior.log_weights + _log_evidences(parts, data, components)
    weights = dist.Categorical(logits=logits.log_softmax(-1).to(dtype))
    return dist.MixtureSameFamily(weights, dist.MultivariateNormal(means, scale_tril=factors))


def exact_log_evidence(model: LatentModel, x: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""log p(x) of a linear model with Gaussian noise, (N,), in nats per datum.

    .. math:: \log p(x) = \log \sum_k \pi_k N(x; W m_k + b, W S_k W^T + C)

    The quadratic form and the determinant are taken in d dimensions (Woodbury's identity and the determinant lemma),
    and the former as |x - W z - b|^2 / c + |u|^2 at the posterior mean, where nothing cancels for a small c.
    With a ``mask`` it is the log density of the observed entries (zero where there are none).

    Arguments, costs and errors are those of :func:`exact_posterior`.
    Source: Tipping and Bishop (1999), section 3.2; Woodbury (1950) for the inverse.

    >>> from probvae.models import LinearGaussianModel
    >>> model = LinearGaussianModel(torch.tensor([[1.0], [2.0]]), variance=1.0)
    >>> exact_log_evidence(model, torch.zeros(1, 2))  # -log(2 pi) - log det(W W^T + I) / 2, the determinant is 6
    tensor([-2.7338])
    """
    parts, data, dtype = _prepare(model, x, mask)
    size = rows_at_once(parts.prior.scale_trils.numel(), x)
    log_evidences = [_log_evidences(parts, rows, _components(parts, rows)) for rows in data.split(size)]
    return torch.logsumexp(parts.prior.log_weights + torch.cat(log_evidences), dim=-1).to(dtype)


def posterior_precision(model: LatentModel) -> Tensor:
    r"""P = S^-1 + W^T C^-1 W (d, d), the inverse covariance of p(z|x), which is the same for every x.

    In inverse squared units of z. Raises :class:`~probvae.errors.NotLinearGaussianError` for a model without closed
    form, and for a prior of several components, which leaves no single covariance.
    Source: Bishop (2006), "Pattern Recognition and Machine Learning", equation 2.117.

    >>> from probvae.models import LinearGaussianModel
    >>> posterior_precision(LinearGaussianModel(torch.tensor([[1.0], [2.0]]), variance=0.5))
    tensor([[11.]])
    """
    own = linear_gaussian(model)
    check_single(own, model)
    parts = _in_double(own)
    prior_precision = torch.cholesky_inverse(parts.prior.scale_trils[0])
    return (prior_precision + _information(parts, (1 / parts.variance)[None])[0]).to(own.weight.dtype)


def posterior_moments(posterior: dist.TorchDistribution) -> tuple[Tensor, Tensor]:
    """The mean (N, d) and covariance (N, d, d) of what :func:`exact_posterior` gives, over all components.

    >>> q = dist.MultivariateNormal(torch.zeros(5, 2), torch.eye(2))
    >>> posterior_moments(q)[1].shape
    torch.Size([5, 2, 2])
    """
    if not isinstance(posterior, dist.MixtureSameFamily):
        return posterior.mean, posterior.covariance_matrix
    weights, component = posterior.mixture_distribution.probs, posterior.component_distribution
    mean = posterior.mean
    offset = component.loc - mean.unsqueeze(-2)
    spread = component.covariance_matrix + offset.unsqueeze(-1) * offset.unsqueeze(-2)
    return mean, torch.einsum("nk,nkij->nij", weights, spread)


def check_single(parts: LinearGaussian, model: LatentModel) -> None:
    """Raise unless the prior has one component, so that the posterior is one Gaussian."""
    if len(parts.prior.log_weights) > 1:
        raise NotLinearGaussianError(
            f"model: expected a Gaussian posterior, got a mixture: prior {type(model.prior).__name__} has "
            f"{len(parts.prior.log_weights)} components. Take a prior with one, or use exact_posterior."
        )


class _Data(NamedTuple):
    """x - b (N, D), any number where missing; 1/c (1 or N, D), zero where missing; the sum of log 2 pi c (1 or N,)."""

    centred: Tensor
    weights: Tensor
    log_normaliser: Tensor

    def split(self, size: int) -> Iterator["_Data"]:
        """These data in tiles of at most ``size`` rows."""
        for rows in torch.arange(len(self.centred)).split(size):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            shared = slice(None) if len(self.weights) == 1 else part
            yield _Data(self.centred[part], self.weights[shared], self.log_normaliser[shared])


class _Components(NamedTuple):
    """Posterior means (N, K, d) and factors (1 or N, K, d, d) of z; the same of u = L_k^-1 (z - m_k), which is in
    units of the prior; and W^T C^-1 W over the observed entries (1 or N, 1, d, d).
    """

    means: Tensor
    scale_trils: Tensor
    whitened_means: Tensor
    whitened_trils: Tensor
    information: Tensor


def _prepare(model: LatentModel, x: Tensor, mask: Tensor | None) -> tuple[LinearGaussian, _Data, torch.dtype]:
    """The model's numbers and the data in float64, and the model's own dtype."""
    parts = linear_gaussian(model)
    dtype, parts = parts.weight.dtype, _in_double(parts)
    check_matrix(x, model.data_dim)
    if mask is None and model.missing == "mask":
        mask = ~x.isnan()
    x, observed = x.to(parts.weight), torch.ones_like(parts.variance)[None]
    if mask is not None:
        check_mask(mask, x)
        # all data share one factorisation if nothing is missing
        x, observed = torch.where(mask, x, 0), observed if mask.all() else mask.to(x)
    check_finite(x)
    log_normaliser = (observed * (2 * torch.pi * parts.variance).log()).sum(-1)
    return parts, _Data(x - parts.bias, observed / parts.variance, log_normaliser), dtype


def _in_double(parts: LinearGaussian) -> LinearGaussian:
    prior = GaussianMixture(*(number.double() for number in parts.prior))
    return LinearGaussian(parts.weight.double(), parts.bias.double(), parts.variance.double(), prior)


def check_mask(mask: Tensor, x: Tensor) -> None:
    """Raise unless ``mask`` is boolean and has the shape of ``x``."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise ArgumentError(f"mask: expected a boolean tensor, True where x was observed, got {got}. Use mask.bool().")
    if mask.shape != x.shape:
        raise ShapeError(
            f"mask: expected the shape of x, {tuple(x.shape)}, got {tuple(mask.shape)}. "
            "For the same pattern in every row use mask.expand_as(x)."
        )


def _components(parts: LinearGaussian, data: _Data) -> _Components:
    means, factors = parts.prior.means.unsqueeze(0), parts.prior.scale_trils.unsqueeze(0)
    information = _information(parts, data.weights).unsqueeze(1)
    # Every precision in units of the prior is I + something >= 0, whatever the prior's own scales are.
    whitened_trils = _inverse_factors(parts, data.weights)
    pull = ((data.centred * data.weights) @ parts.weight).unsqueeze(1) - _apply(information, means)
    whitened_means = _apply(whitened_trils, _apply(whitened_trils.mT, _apply(factors.mT, pull)))
    if len(parts.prior.log_weights) == 1:
        # One step of refinement: the products above square the condition number, the residual in x does not.
        error = data.centred - (means + _apply(factors, whitened_means))[:, 0] @ parts.weight.mT
        rest = _apply(factors.mT, ((error * data.weights) @ parts.weight).unsqueeze(1)) - whitened_means
        whitened_means = whitened_means + _apply(whitened_trils, _apply(whitened_trils.mT, rest))
    z_means, z_trils = means + _apply(factors, whitened_means), factors @ whitened_trils
    return _Components(z_means, z_trils, whitened_means, whitened_trils, information)


def _log_evidences(parts: LinearGaussian, data: _Data, components: _Components) -> Tensor:
    """log N(x; W m_k + b, W S_k W^T + C) for each component, (N, K)."""
    log_det = -2 * components.whitened_trils.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    quadratic = _squared_errors(parts, data, components) + components.whitened_means.square().sum(-1)
    return -0.5 * (quadratic + log_det + data.log_normaliser.unsqueeze(-1))


def _information(parts: LinearGaussian, weights: Tensor) -> Tensor:
    """W^T C^-1 W over the observed entries, (1 or N, d, d)."""
    weight = parts.weight

    def per_row(rows: Tensor) -> Tensor:
        return (rows.unsqueeze(-1) * weight).mT @ weight

    return torch.cat([per_row(rows) for rows in weights.split(rows_at_once(weight.numel(), weights))])


def _squared_errors(parts: LinearGaussian, data: _Data, components: _Components) -> Tensor:
    """|x - W z - b|^2 / c over the observed entries at the posterior means, (N, K).

    In D dimensions only for the first component. The others are an expansion about it, which has no large terms,
    because every posterior mean is near the least-squares solution where that is sharp.
    """
    first = components.means[:, 0]
    error = data.centred - first @ parts.weight.mT
    slope = ((error * data.weights) @ parts.weight).unsqueeze(1)
    offset = components.means - first.unsqueeze(1)
    change = offset * (_apply(components.information, offset) - 2 * slope)
    return (error.square() * data.weights).sum(-1, keepdim=True) + change.sum(-1)


def _inverse_factors(parts: LinearGaussian, weights: Tensor) -> Tensor:
    """The lower triangular F with F F^T = (I + L^T W^T C^-1 W L)^-1, (1 or N, K, d, d)."""
    factors = parts.prior.scale_trils
    columns = parts.weight @ factors  # (K, D, d)
    return torch.cat([_inverse_factor(rows, columns) for rows in weights.split(rows_at_once(columns.numel(), weights))])


def _inverse_factor(weights: Tensor, columns: Tensor) -> Tensor:
    """The same for W L = ``columns`` (K, D, d) and some rows of 1/c (n, D): the factor is taken with its columns
    reversed, so that its inverse, reversed again, is lower triangular.
    """
    root = weights.sqrt()[:, None, :, None] * columns
    identity = torch.eye(root.shape[-1]).to(root)
    stacked = torch.cat([root, identity.expand(*root.shape[:-2], -1, -1)], dim=-2).flip(-1)
    if not torch.isfinite(stacked).all():
        raise ArgumentError(
            f"model: expected W and c whose ratio fits into {root.dtype}, got numbers that overflow. Raise the "
            "variance c, or rescale the data."
        )
    upper = torch.linalg.qr(stacked).R
    upper = upper * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-1)
    return torch.linalg.solve_triangular(upper, identity, upper=True).flip((-2, -1))


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """A v for A (1 or N, 1 or K, d, d) and v (1 or N, K, d)."""
    # einsum joins the rows that share a matrix into one product; a broadcast matmul would go through them one by one
    return torch.einsum("nkij,nkj->nki", matrix, vector)


def rows_at_once(row_size: int, like: Tensor) -> int:
    """How many rows of ``row_size`` elements an intermediate array (R, ...) may have."""
    return max(1, _CHUNK_BYTES // (like.element_size() * row_size))
