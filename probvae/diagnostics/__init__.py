"""How wrong the posterior is, and where that comes from."""

from probvae.diagnostics.calibration.c2st import C2ST, c2st
from probvae.diagnostics.calibration.calibrate import (
    CalibrationResult,
    calibrate_pairs,
    calibration,
    calibration_on_data,
)
from probvae.diagnostics.ledger.gap import Gap, GapResult, posterior_gap
from probvae.diagnostics.prediction.predictive_check import PredictiveCheckResult, predictive_check
from probvae.diagnostics.usage.latent_usage import LatentUsageResult, latent_usage
from probvae.diagnostics.weights.distance_bounds import DistanceBounds, distance_bounds
from probvae.diagnostics.weights.importance import ImportanceDiagnostic, importance_diagnostic, resample

__all__ = [
    "C2ST",
    "CalibrationResult",
    "DistanceBounds",
    "Gap",
    "GapResult",
    "ImportanceDiagnostic",
    "LatentUsageResult",
    "PredictiveCheckResult",
    "c2st",
    "calibrate_pairs",
    "calibration",
    "calibration_on_data",
    "distance_bounds",
    "importance_diagnostic",
    "latent_usage",
    "posterior_gap",
    "predictive_check",
    "resample",
]
