"""How wrong the posterior is, and where that comes from."""

from probvae.diagnostics.calibration import (
    CalibrationResult,
    calibrate_pairs,
    calibration,
    calibration_on_data,
)
from probvae.diagnostics.gap import Gap, GapResult, posterior_gap
from probvae.diagnostics.two_sample import C2ST, c2st

__all__ = [
    "C2ST",
    "CalibrationResult",
    "Gap",
    "GapResult",
    "c2st",
    "calibrate_pairs",
    "calibration",
    "calibration_on_data",
    "posterior_gap",
]
