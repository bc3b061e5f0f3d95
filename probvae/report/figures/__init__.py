"""The figures of a fit: each function takes numpy arrays and returns a matplotlib ``Figure``.

None of them uses pyplot or leaves a matplotlib setting changed.
"""

from probvae.report.figures.comparing import RatePoint, paired_differences, rate_distortion
from probvae.report.figures.curves import CurvePanel, posterior_curves
from probvae.report.figures.decoding import decoded_grid
from probvae.report.figures.latent import latent_plane
from probvae.report.figures.learning import learning_curve
from probvae.report.figures.posterior import DensityInPlane, NormalInPlane, PosteriorPanel, posterior_contours
from probvae.report.figures.reconstruction import reconstructions
from probvae.report.figures.sampling import samples
from probvae.report.figures.saving import save_figure

__all__ = [
    "CurvePanel",
    "DensityInPlane",
    "NormalInPlane",
    "PosteriorPanel",
    "RatePoint",
    "decoded_grid",
    "latent_plane",
    "learning_curve",
    "paired_differences",
    "posterior_contours",
    "posterior_curves",
    "rate_distortion",
    "reconstructions",
    "samples",
    "save_figure",
]
