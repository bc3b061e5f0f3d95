"""The figures of a VAE: each function takes numpy arrays and returns a matplotlib ``Figure``.

In: one file for each thing that is shown (``ledger_figure.py``, ``learning_figure.py``, ...). A docstring says what is
drawn and how to read it. No figure knows of a VAE, imports torch, uses pyplot, or leaves a setting of matplotlib
changed. Out: the look (``drawing/``), and captions (``sections/``).

The door for a figure on disk is ``save_figure``.
"""

from probvae.report.drawing.figure_files import save_figure
from probvae.report.figures.comparing_figure import RatePoint, paired_differences, rate_distortion
from probvae.report.figures.latent_figure import latent_plane
from probvae.report.figures.learning_figure import learning_curve
from probvae.report.figures.posterior_figure import (
    CurvePanel,
    DensityInPlane,
    NormalInPlane,
    PosteriorPanel,
    posterior_contours,
    posterior_curves,
)
from probvae.report.figures.reconstruction_figure import reconstructions
from probvae.report.figures.sampling_figure import decoded_grid, samples

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
