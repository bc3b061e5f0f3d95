"""q_x(z). To add a family: one new file here and one line below."""

from .base import Guide as Guide
from .base import LocalGuide as LocalGuide
from .constrained import ConstrainedGuide as ConstrainedGuide
from .constrained import inside_support as inside_support
from .diagonal import DiagonalGuide as DiagonalGuide
from .exact import ExactGuide as ExactGuide
from .flow import FlowGuide as FlowGuide
from .full_covariance import FullCovarianceGuide as FullCovarianceGuide
from .low_rank import LowRankGuide as LowRankGuide
from .mixture import MixtureGuide as MixtureGuide
from .per_datum import FreeGuide as FreeGuide
from .per_datum import PerDatumGuide as PerDatumGuide
from .semi_amortized import SemiAmortizedGuide as SemiAmortizedGuide
