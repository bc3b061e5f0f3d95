"""Priors p(z), one file each.

In: distributions over the latent vector, fixed or learned. A prior is called without arguments and returns a
distribution with batch_shape () and event_shape (d,); it never returns a number.
Out: distributions of z for one datum, which are guides (:mod:`probvae.inference.guides`).
The door is :class:`Prior`, the contract. To add a prior: one new file here and one line below.
"""

from probvae.foundation.package import export_public_names

from .base import Prior as Prior
from .conditional_normal_prior import ConditionalNormalPrior as ConditionalNormalPrior
from .distribution_prior import DistributionPrior as DistributionPrior
from .flow_prior import FlowPrior as FlowPrior
from .laplace_prior import LaplacePrior as LaplacePrior
from .mixture_prior import MixturePrior as MixturePrior
from .normal_prior import NormalPrior as NormalPrior
from .standard_normal_prior import StandardNormalPrior as StandardNormalPrior
from .student_t_prior import StudentTPrior as StudentTPrior
from .uniform_hypercube_prior import UniformHypercubePrior as UniformHypercubePrior
from .vamp_prior import VampPrior as VampPrior

export_public_names(__name__)
