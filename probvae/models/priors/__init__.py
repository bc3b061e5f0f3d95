"""p(z). To add a prior: one new file here and one line below."""

from .base import Prior as Prior
from .conditional_normal import ConditionalNormalPrior as ConditionalNormalPrior
from .distribution import DistributionPrior as DistributionPrior
from .flow import FlowPrior as FlowPrior
from .laplace import LaplacePrior as LaplacePrior
from .mixture import MixturePrior as MixturePrior
from .normal import NormalPrior as NormalPrior
from .standard_normal import StandardNormalPrior as StandardNormalPrior
from .student_t import StudentTPrior as StudentTPrior
from .uniform_hypercube import UniformHypercubePrior as UniformHypercubePrior
from .vamp import VampPrior as VampPrior
