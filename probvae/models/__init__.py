"""Everything about p: priors, decoders, likelihoods, and the model p(z) p(x|z) they make."""

from probvae.foundation.exports import export_public_names

from .covariates import Covariates as Covariates
from .covariates import LabelCovariates as LabelCovariates
from .covariates import NumberCovariates as NumberCovariates
from .covariates import covariates_for as covariates_for
from .decoders import ConvDecoder as ConvDecoder
from .decoders import Decoder as Decoder
from .decoders import LinearDecoder as LinearDecoder
from .decoders import MLPDecoder as MLPDecoder
from .latent import LatentModel as LatentModel
from .likelihoods import *
from .linear_gaussian import LinearGaussianModel as LinearGaussianModel
from .priors import *

export_public_names(__name__)
