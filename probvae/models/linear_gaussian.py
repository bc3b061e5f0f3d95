"""The model whose posterior and evidence are known."""

import torch
from torch import Tensor

from probvae.errors import ArgumentError, ShapeError
from probvae.foundation.checks import check_matrix
from probvae.models.decoders import LinearDecoder
from probvae.models.latent import LatentModel
from probvae.models.likelihoods import GaussianLikelihood
from probvae.models.priors import Prior, StandardNormalPrior

# Floor of a variance as a share of its start: far below, and not zero, so that training cannot reach zero either
_RELATIVE_FLOOR = 1e-6


class LinearGaussianModel(LatentModel):
    r"""Probabilistic PCA, or factor analysis, with known parameters: x = W z + b + noise.

    .. math:: z \sim N(0, I), \qquad x \mid z \sim N(W z + b, \operatorname{diag}(c))

    Its posterior and evidence are in closed form: :func:`probvae.inference.exact_posterior`.

    Parameters
    ----------
    weight
        W (D, d); its dtype and device are the model's.
    bias
        b (D,), by default zero.
    variance
        c, a *variance* in squared units of x: one number (probabilistic PCA) or a tensor (D,) (factor analysis).
    prior
        p(z) over R^d, by default N(0, I).
    trainable
        Whether W, b and c are to be trained. A loaded model is always trainable, except for a c that was frozen.

    Raises :class:`~probvae.errors.ShapeError` for sizes that do not fit, and
    :class:`~probvae.errors.ArgumentError` for a variance that is not positive: the data's covariance would be singular.
    Source: Tipping and Bishop (1999), "Probabilistic Principal Component Analysis", equation 2; Rubin and Thayer (1982)
    for one variance a dimension.

    >>> import torch
    >>> model = LinearGaussianModel(torch.tensor([[1.0], [2.0]]), variance=0.25)
    >>> model.data_dim, model.latent_dim
    (2, 1)
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        variance: float | Tensor = 1.0,
        *,
        prior: Prior | None = None,
        trainable: bool = False,
    ) -> None:
        check_matrix(weight, name="weight")
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        decoder = _decoder(weight, bias).requires_grad_(trainable)
        likelihood = _likelihood(weight, variance, trainable)
        prior = prior or StandardNormalPrior(weight.shape[1])
        super().__init__(prior.to(weight), decoder, likelihood)


def _decoder(weight: Tensor, bias: Tensor) -> LinearDecoder:
    data_dim, latent_dim = weight.shape
    if bias.shape != (data_dim,):
        raise ShapeError(f"bias: expected shape ({data_dim},), got {tuple(bias.shape)}. W has {data_dim} rows.")
    decoder = LinearDecoder(latent_dim, data_dim).to(weight)
    with torch.no_grad():
        decoder.weight.copy_(weight)
        decoder.bias.copy_(bias)
    return decoder


@torch.no_grad()
def _likelihood(weight: Tensor, variance: float | Tensor, trainable: bool) -> GaussianLikelihood:
    c = torch.as_tensor(variance, dtype=weight.dtype, device=weight.device)
    _check_variance(c, len(weight))
    if c.ndim == 0 and not trainable:
        likelihood = GaussianLikelihood(len(weight), c.item()).to(weight)
        likelihood.fixed_variance.copy_(c)  # c.item() went through the default dtype, which may round
        return likelihood
    mode, floor = "per-dimension" if c.ndim else "learned", _RELATIVE_FLOOR * c.min().item()
    likelihood = GaussianLikelihood(len(weight), mode, c.max().item(), floor).to(weight)
    likelihood.log_variance.copy_((c - floor).log())
    return likelihood.requires_grad_(trainable)


def _check_variance(variance: Tensor, data_dim: int) -> None:
    if variance.shape not in ((), (data_dim,)):
        raise ShapeError(f"variance: expected one number or shape ({data_dim},), got {tuple(variance.shape)}.")
    if not (torch.isfinite(variance) & (variance > 0)).all():
        raise ArgumentError(
            f"variance: expected finite numbers > 0, got {variance.min().item():g} to {variance.max().item():g}. "
            "With a variance of zero the covariance of x is singular: drop constant columns, or set a small floor."
        )
