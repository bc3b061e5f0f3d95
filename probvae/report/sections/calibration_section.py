"""Calibration on simulated data and on the data themselves: two sections of the same kind."""

from collections.abc import Iterator

import numpy as np

from probvae.diagnostics.calibration.ranks import ecdf_band
from probvae.diagnostics.calibration.result import CalibrationResult
from probvae.report.figures.calibration_figure import coverage_curves, rank_differences, scores_and_contraction
from probvae.report.sections.base import Drawn, Section, Subject, as_double

_NUM_POINTS = 101
_LABELS = {
    "source": "where the true z come from",
    "coverage": "Coverage: the share of true z inside regions that should hold the expected share",
    "coverage.expected": "expected",
    "coverage.central": "intervals of single latents",
    "coverage.highest_density": "highest-density regions of all latents",
    "num_simulations": "number of pairs (z, x)",
    "num_draws": "draws of the guide for each pair",
    "tarp_area": "balls around predictions (TARP): area between curve and diagonal, expected 0",
    "log_weight_rank": "mean rank of log p(x, z) − log q(z), expected 0.5",
    "c2st_accuracy": "accuracy of the classifier (C2ST), expected 0.5",
    "c2st_accuracy.num_judged": "pairs that the classifier was judged on",
    "z_score": "mean z-score, expected 0, latent",
    "z_score_squared": "mean squared z-score, expected 1, latent",
    "contraction": "contraction: share of the prior's variance that x takes away, latent",
}
_CHECKS = {
    "sbc": "ranks of single latents (SBC)",
    "central_coverage": "coverage of intervals",
    "hpd_coverage": "coverage of highest-density regions",
    "tarp": "coverage of balls around predictions (TARP)",
    "log_weight": "rank of the guide's log weight",
    "c2st": "a classifier tells guide and posterior apart (C2ST)",
    "z_score": "mean of the z-scores (bias)",
    "spread": "size of the z-scores (width)",
}
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


def figures(result: CalibrationResult, subject: Subject) -> Iterator[Drawn]:
    """Ranks, coverage, and z-scores over contraction; the names begin with the result's section."""
    prefix = result.section.replace("_", "-")
    points = np.linspace(0, 1, _NUM_POINTS)[1:-1]
    band = ecdf_band(len(result.rank), points)
    ranks = rank_differences(as_double(result.rank), as_double(result.log_weight_rank), points, band)
    yield Drawn(f"{prefix}-ranks", ranks, {"num": len(result.rank), "source": result.source})
    levels = {
        "central intervals": as_double(result.central_level.flatten()),
        "highest-density regions": as_double(result.density_level),
        "balls about predictions (TARP)": as_double(result.tarp_level),
    }
    yield Drawn(f"{prefix}-coverage", coverage_curves(levels, points, band))
    yield Drawn(f"{prefix}-scores", scores_and_contraction(as_double(result.score), as_double(result.contraction)))


def _captions(prefix: str) -> dict[str, str]:
    return {f"{prefix}-ranks": _RANKS, f"{prefix}-coverage": _COVERAGE, f"{prefix}-scores": _SCORES}


SIMULATED = Section(
    name="calibration",
    title="Calibration on simulated data",
    question="When the model makes data from a known z, does the guide's posterior hold that z as often as it says?",
    labels=_LABELS,
    checks=_CHECKS,
    captions=_captions("calibration"),
    figures=figures,
)
ON_DATA = Section(
    name="calibration_on_data",
    title="Calibration on these data",
    question="Does the guide's posterior of these data hold draws of the exact posterior as often as it says? A guide "
    "may be right where the model puts its data, and wrong where the data are.",
    labels=_LABELS,
    checks=_CHECKS,
    captions=_captions("calibration-on-data"),
    figures=figures,
    drawn_when_quick=False,  # they look like those of simulated data, and the numbers are enough for a first look
)
