"""Everything about p: priors, decoders, likelihoods, and the model p(z) p(x|z) they make."""

from probvae.models.covariates import Covariates, LabelCovariates, NumberCovariates, covariates_for
from probvae.models.decoders import Decoder, LinearDecoder, MLPDecoder
from probvae.models.latent import LatentModel
from probvae.models.likelihoods import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from probvae.models.linear_gaussian import LinearGaussianModel
from probvae.models.priors import MixturePrior, NormalPrior, Prior, StandardNormalPrior

__all__ = [
    "BernoulliLikelihood",
    "ContinuousBernoulliLikelihood",
    "Covariates",
    "Decoder",
    "GaussianLikelihood",
    "LabelCovariates",
    "LatentModel",
    "Likelihood",
    "LinearDecoder",
    "LinearGaussianModel",
    "MLPDecoder",
    "MixturePrior",
    "NormalPrior",
    "NumberCovariates",
    "Prior",
    "StandardNormalPrior",
    "covariates_for",
]
