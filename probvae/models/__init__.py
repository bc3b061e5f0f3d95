"""Everything about p: priors, decoders, likelihoods, and the model p(z) p(x|z) they make."""

from probvae.models.covariates import Covariates, LabelCovariates, NumberCovariates, covariates_for
from probvae.models.decoders import ConvDecoder, Decoder, LinearDecoder, MLPDecoder
from probvae.models.latent import LatentModel
from probvae.models.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    LaplaceLikelihood,
    Likelihood,
    MixedLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    StudentTLikelihood,
)
from probvae.models.linear_gaussian import LinearGaussianModel
from probvae.models.priors import (
    ConditionalNormalPrior,
    DistributionPrior,
    FlowPrior,
    LaplacePrior,
    MixturePrior,
    NormalPrior,
    Prior,
    StandardNormalPrior,
    StudentTPrior,
    UniformHypercubePrior,
    VampPrior,
)

__all__ = [
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ConditionalNormalPrior",
    "ContinuousBernoulliLikelihood",
    "ConvDecoder",
    "Covariates",
    "Decoder",
    "DiscretizedLogisticLikelihood",
    "DistributionPrior",
    "FlowPrior",
    "GaussianLikelihood",
    "LabelCovariates",
    "LaplaceLikelihood",
    "LaplacePrior",
    "LatentModel",
    "Likelihood",
    "LinearDecoder",
    "LinearGaussianModel",
    "MLPDecoder",
    "MixedLikelihood",
    "MixturePrior",
    "NegativeBinomialLikelihood",
    "NormalPrior",
    "NumberCovariates",
    "PoissonLikelihood",
    "Prior",
    "StandardNormalPrior",
    "StudentTLikelihood",
    "StudentTPrior",
    "UniformHypercubePrior",
    "VampPrior",
    "covariates_for",
]
