"""The pictures of a calibration."""

import numpy as np

from probvae.diagnostics.calibration.ranks import ecdf_band
from probvae.diagnostics.calibration.result import CalibrationResult
from probvae.report.figures.calibration_figure import coverage_curves, rank_differences, scores_and_contraction
from probvae.report.illustration import Illustration
from probvae.report.tensors import as_double

_NUM_POINTS = 101


def illustrations(result: CalibrationResult) -> list[Illustration]:
    """Ranks, coverage, and z-scores over contraction; the names begin with the result's section."""
    points = np.linspace(0, 1, _NUM_POINTS)[1:-1]
    band = ecdf_band(len(result.rank), points)
    ranks = rank_differences(as_double(result.rank), as_double(result.log_weight_rank), points, band)
    levels = {
        "central intervals": as_double(result.central_level.flatten()),
        "highest-density regions": as_double(result.density_level),
        "balls about predictions (TARP)": as_double(result.tarp_level),
    }
    coverage = coverage_curves(levels, points, band)
    scores = scores_and_contraction(as_double(result.score), as_double(result.contraction))
    prefix = result.section.replace("_", "-")
    return [
        Illustration(f"{prefix}-ranks", ranks, _RANKS.format(num=len(result.rank), source=result.source)),
        Illustration(f"{prefix}-coverage", coverage, _COVERAGE),
        Illustration(f"{prefix}-scores", scores, _SCORES),
    ]


_RANKS = (
    "Ranks of the true z among the guide's draws, less what is expected, for {num} {source}. Good: all lines stay in "
    "the grey band, which holds 95 % of right ones. Above it at the left and below at the right: q is too narrow; the "
    "other way round: too wide; on one side: biased. The dashed line is the rank of log p(x, z) - log q(z): it alone "
    "sees a lost correlation or a guide that ignores x, and then lies below the band."
)
_COVERAGE = (
    "How many true z lie in the guide's regions, over how many should. Good: on the diagonal, in the grey band. Below "
    "it the guide is too sure of itself, above it too unsure. Intervals are those of single latents, highest-density "
    "regions and balls are joint; the balls stand where a linear prediction from x puts z."
)
_SCORES = (
    "Each point is a pair and a latent: where the true z lies in q (in standard deviations), over how much of the "
    "prior's variance x took away. Good: each cross at 0 with a bar from -1 to 1. Longer bars: q too narrow; a "
    "cross off 0: biased; a cloud at contraction 0: this latent is not used."
)
