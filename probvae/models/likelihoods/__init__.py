"""p(x|z). To add a likelihood: one new file here and one line below."""

from .base import Likelihood as Likelihood
from .bernoulli import BernoulliLikelihood as BernoulliLikelihood
from .continuous_bernoulli import ContinuousBernoulliLikelihood as ContinuousBernoulliLikelihood
from .gaussian import GaussianLikelihood as GaussianLikelihood
