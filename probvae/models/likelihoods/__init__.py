"""p(x|z). To add a likelihood: one new file here and one line below."""

from .base import Likelihood as Likelihood
from .bernoulli import BernoulliLikelihood as BernoulliLikelihood
from .categorical import CategoricalLikelihood as CategoricalLikelihood
from .continuous_bernoulli import ContinuousBernoulliLikelihood as ContinuousBernoulliLikelihood
from .discretized_logistic import DiscretizedLogisticLikelihood as DiscretizedLogisticLikelihood
from .gaussian import GaussianLikelihood as GaussianLikelihood
from .laplace import LaplaceLikelihood as LaplaceLikelihood
from .mixed import MixedLikelihood as MixedLikelihood
from .negative_binomial import NegativeBinomialLikelihood as NegativeBinomialLikelihood
from .poisson import PoissonLikelihood as PoissonLikelihood
from .student_t import StudentTLikelihood as StudentTLikelihood
