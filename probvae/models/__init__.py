"""Everything about p: priors, decoders, likelihoods, and the model p(z) p(x|z) that they make.

In: the families ``priors/`` and ``likelihoods/`` (one file a component), ``decoders``, ``covariates`` (y of a
conditional model), ``latent`` (the model as a Pyro program), ``linear_gaussian`` (the model with a known posterior),
and the networks, flows and Cholesky factors that components share.
Out: everything about q and about fitting, which is :mod:`probvae.inference`. No file here knows a real guide.
The door is :class:`LatentModel`; a component is reached by its name through ``Prior.named(...)`` and its kin.
"""

from probvae.foundation.package import export_public_names

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
