"""q_x(z): one file for each family of guides.

In: the contract of a guide and of a guide with local parameters (``base``), the registered families, the guide at
known covariates (``conditioned_guide``), the best diagonal guide in closed form (``best_diagonal``), and the
operations of a family that a search needs (``families``).
Out: encoders, which a guide takes (``inference.encoders``); the search itself (``evaluation.refine``).
The door is :class:`~probvae.inference.Guide`. To add a family: one new file here, derived from ``Guide`` or
``LocalGuide``, and one line below.
"""

from probvae.foundation.package import export_public_names

from .base import Guide as Guide
from .base import LocalGuide as LocalGuide
from .constrained_guide import ConstrainedGuide as ConstrainedGuide
from .constrained_guide import inside_support as inside_support
from .diagonal_guide import DiagonalGuide as DiagonalGuide
from .exact_guide import ExactGuide as ExactGuide
from .flow_guide import FlowGuide as FlowGuide
from .free_guide import FreeGuide as FreeGuide
from .free_guide import PerDatumGuide as PerDatumGuide
from .full_covariance_guide import FullCovarianceGuide as FullCovarianceGuide
from .low_rank_guide import LowRankGuide as LowRankGuide
from .mixture_guide import MixtureGuide as MixtureGuide
from .semi_amortized_guide import SemiAmortizedGuide as SemiAmortizedGuide

export_public_names(__name__)
