"""The optimum of a family of guides in closed form."""

import torch
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.inference.encoders import LinearEncoder
from probvae.inference.guides import DiagonalGuide
from probvae.inference.guides.base import LOG_SCALE_BOUND
from probvae.inference.linear.closed_form_model import linear_gaussian
from probvae.inference.linear.exact import check_single, posterior_precision
from probvae.models import LatentModel


@torch.no_grad()
def best_diagonal_guide(model: LatentModel) -> DiagonalGuide:
    r"""The diagonal guide with the largest ELBO for every x, for a model whose posterior is one Gaussian.

    .. math:: g(x) = m + P^{-1} W^T C^{-1} (x - b - W m), \qquad s_i^2 = 1 / P_{ii}, \qquad P = S^{-1} + W^T C^{-1} W

    for the prior N(m, S). The mean is exact; the variances are at most those of the posterior. It loses
    :func:`~probvae.inference.diagonal_gap` (P) nats on every datum. Because g is affine and s constant, a linear
    encoder reaches it: the result is an ordinary ``DiagonalGuide``, which can be saved or trained on.

    Raises :class:`~probvae.errors.NotLinearGaussianError` for a model without closed form or with a mixture prior, and
    :class:`~probvae.errors.ArgumentError` when an s lies outside the guide's bound exp(+-10).
    Source: Bishop (2006), "Pattern Recognition and Machine Learning", section 10.1.2.

    >>> from probvae.models import LinearGaussianModel
    >>> guide = best_diagonal_guide(LinearGaussianModel(torch.tensor([[1.0, 1.0], [0.0, 1.0]])))
    >>> guide.distribution(torch.zeros(1, 2)).variance.detach().round(decimals=4)  # P = [[2, 1], [1, 3]]
    tensor([[0.5000, 0.3333]])
    """
    parts = linear_gaussian(model)
    check_single(parts, model)
    precision, prior_mean = posterior_precision(model), parts.prior.means[0]
    slope = torch.linalg.solve(precision, parts.weight.mT / parts.variance)
    guide = DiagonalGuide(LinearEncoder(model.data_dim), model.latent_dim).to(parts.weight)
    guide.loc.weight.copy_(slope)
    guide.loc.bias.copy_(prior_mean - slope @ (parts.bias + parts.weight @ prior_mean))
    guide.log_scale.bias.copy_(_raw_scale(-0.5 * precision.diagonal().log()))
    return guide


def _raw_scale(log_scale: Tensor) -> Tensor:
    """The inverse of ``bounded_scale``, from log s."""
    if not (log_scale.abs() < LOG_SCALE_BOUND).all():
        raise ArgumentError(
            f"model: expected posterior scales within exp(+-{LOG_SCALE_BOUND:g}), which is as far as a DiagonalGuide "
            f"goes, got exp({log_scale.min().item():.3g}) to exp({log_scale.max().item():.3g}). Rescale the data or z."
        )
    return LOG_SCALE_BOUND * torch.atanh(log_scale / LOG_SCALE_BOUND)
