"""p(z). To add a prior: one new file here and one line below."""

from .base import Prior as Prior
from .mixture import MixturePrior as MixturePrior
from .normal import NormalPrior as NormalPrior
from .standard_normal import StandardNormalPrior as StandardNormalPrior
