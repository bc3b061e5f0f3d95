"""Recognise a model whose posterior has a closed form, and read its parameters."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from probvae.errors import NotLinearGaussianError
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, Prior
from probvae.models.covariates import ConditionedDecoder


class GaussianMixture(NamedTuple):
    """sum_k pi_k N(m_k, L_k L_k^T): log pi (K,), m (K, d), L (K, d, d)."""

    log_weights: Tensor
    means: Tensor
    scale_trils: Tensor


class LinearGaussian(NamedTuple):
    """x = W z + b + noise: W (D, d), b (D,), the noise's variance c (D,), and p(z) as a mixture of Gaussians.

    b is (N, D) where the data have covariates of their own.
    """

    weight: Tensor
    bias: Tensor
    variance: Tensor
    prior: GaussianMixture


def linear_gaussian(model: LatentModel) -> LinearGaussian:
    """The numbers of a model with a linear decoder, Gaussian noise and a prior that is a mixture of Gaussians.

    Gradients flow to the model's parameters. Raises :class:`~probvae.errors.NotLinearGaussianError`, which names
    every part that is none of these.

    >>> from probvae.models import GaussianLikelihood, LinearDecoder, StandardNormalPrior
    >>> model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3, variance=0.25))
    >>> linear_gaussian(model).variance
    tensor([0.2500, 0.2500, 0.2500])
    """
    model.check_conditioned()
    affine, mixture = _affine(model.decoder), as_gaussian_mixture(model.prior())
    obstacles = (_decoder_obstacle(model.decoder), _likelihood_obstacle(model), _prior_obstacle(model.prior))
    reasons = [reason for reason in obstacles if reason]
    if reasons or affine is None or mixture is None:
        raise NotLinearGaussianError(
            f"model: expected a closed-form posterior, got {'; '.join(reasons)}. "
            "Estimate the evidence and the posterior instead (quadrature, annealed importance sampling), or take "
            "LinearDecoder, GaussianLikelihood and a Gaussian or Gaussian-mixture prior."
        )
    weight, bias = affine
    # the likelihood has the distribution of GaussianLikelihood, as was checked above
    variance = cast(GaussianLikelihood, model.likelihood).variance(bias).expand(len(weight))
    return LinearGaussian(weight, bias, variance, mixture)


def has_exact_posterior(model: LatentModel) -> bool:
    """True where :func:`~probvae.inference.exact_posterior` and :func:`~probvae.inference.exact_log_evidence` apply.

    >>> from probvae.models import GaussianLikelihood, MLPDecoder, StandardNormalPrior
    >>> has_exact_posterior(LatentModel(StandardNormalPrior(2), MLPDecoder(2, 3), GaussianLikelihood(3)))
    False
    """
    try:
        linear_gaussian(model)
    except NotLinearGaussianError:
        return False
    return True


def as_gaussian_mixture(p: Distribution) -> GaussianMixture | None:
    """A Gaussian, or a mixture of them, as its numbers; None for any other distribution.

    It looks at the distribution and not at the prior's class, so that a new prior needs no line here.
    """
    if p.batch_shape:
        return None  # a distribution for each datum
    if isinstance(p, MixtureSameFamily):
        components = _location_and_factor(p.component_distribution)
        return components and GaussianMixture(p.mixture_distribution.logits.log_softmax(-1), *components)
    single = _location_and_factor(p)
    return single and GaussianMixture(single[0].new_zeros(1), single[0].unsqueeze(0), single[1].unsqueeze(0))


def _location_and_factor(p: Distribution) -> tuple[Tensor, Tensor] | None:
    if isinstance(p, MultivariateNormal | LowRankMultivariateNormal):
        return p.loc, p.scale_tril
    if isinstance(p, Independent) and isinstance(p.base_dist, Normal) and p.reinterpreted_batch_ndims == 1:
        return p.base_dist.loc, torch.diag_embed(p.base_dist.scale)
    return None


def _affine(decoder: nn.Module) -> tuple[Tensor, Tensor] | None:
    if isinstance(decoder, ConditionedDecoder):
        return _affine_conditioned(decoder)
    # A subclass with a forward of its own need not be affine
    if type(decoder).forward not in (LinearDecoder.forward, nn.Linear.forward):
        return None
    parameters: Any = decoder
    weight, bias = parameters.weight, parameters.bias
    return weight, weight.new_zeros(len(weight)) if bias is None else bias


def _affine_conditioned(decoder: ConditionedDecoder) -> tuple[Tensor, Tensor] | None:
    """W z + V y + b: at known y affine in z, with the offset V y + b (D,), or (N, D) where the data have their own."""
    affine = _affine(decoder.decoder)
    if affine is None:
        return None
    weight, bias = affine
    num_latents = weight.shape[1] - decoder.y.shape[1]
    offset = decoder.y.to(weight) @ weight[:, num_latents:].mT + bias
    return weight[:, :num_latents], offset[0] if len(offset) == 1 else offset


def _decoder_obstacle(decoder: nn.Module) -> str | None:
    return None if _affine(decoder) else f"decoder {type(decoder).__name__}, which is not linear"


def _likelihood_obstacle(model: LatentModel) -> str | None:
    likelihood = model.likelihood
    if type(likelihood).distribution is not GaussianLikelihood.distribution:
        return f"likelihood {type(likelihood).__name__}, which is not Gaussian"
    if likelihood.mode == "per-datum":
        return "likelihood GaussianLikelihood with variance='per-datum', which depends on z"
    return None


def _prior_obstacle(prior: Prior) -> str | None:
    p = prior()
    return None if as_gaussian_mixture(p) else f"prior {type(prior).__name__}, which is no mixture of Gaussians"
