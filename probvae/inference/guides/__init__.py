"""q_x(z). To add a family: one new file here and one line below."""

from .base import Guide as Guide
from .diagonal import DiagonalGuide as DiagonalGuide
from .exact import ExactGuide as ExactGuide
from .full_covariance import FullCovarianceGuide as FullCovarianceGuide
