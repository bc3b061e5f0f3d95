"""p(z). To add a prior: one new file here and one line below."""

from .base import Prior as Prior
from .standard_normal import StandardNormalPrior as StandardNormalPrior
