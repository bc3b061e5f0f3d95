"""Likelihoods p(x|z), one file each.

In: distributions over a datum, from the outputs of a decoder; the check that data lie in the support; missing entries;
the positive parameter that several likelihoods learn (``_scale``).
Out: networks, which are decoders (:mod:`probvae.models.decoders`): a likelihood has no weights but its own scale.
The door is :class:`Likelihood`, the contract. To add a likelihood: one new file here and one line below.
"""

from probvae.foundation.package import export_public_names

from .base import Likelihood as Likelihood
from .bernoulli_likelihood import BernoulliLikelihood as BernoulliLikelihood
from .categorical_likelihood import CategoricalLikelihood as CategoricalLikelihood
from .continuous_bernoulli_likelihood import ContinuousBernoulliLikelihood as ContinuousBernoulliLikelihood
from .discretized_logistic_likelihood import DiscretizedLogisticLikelihood as DiscretizedLogisticLikelihood
from .gaussian_likelihood import GaussianLikelihood as GaussianLikelihood
from .laplace_likelihood import LaplaceLikelihood as LaplaceLikelihood
from .mixed_likelihood import MixedLikelihood as MixedLikelihood
from .negative_binomial_likelihood import NegativeBinomialLikelihood as NegativeBinomialLikelihood
from .poisson_likelihood import PoissonLikelihood as PoissonLikelihood
from .student_t_likelihood import StudentTLikelihood as StudentTLikelihood

export_public_names(__name__)
