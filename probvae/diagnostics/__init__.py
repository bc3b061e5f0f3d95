"""How wrong the posterior is, and where that comes from."""

from probvae.diagnostics.c2st import C2ST, c2st
from probvae.diagnostics.calibration import CalibrationResult, calibrate_pairs, calibration, calibration_on_data
from probvae.diagnostics.distance_bounds import DistanceBounds, distance_bounds
from probvae.diagnostics.gap import Gap, GapResult, posterior_gap
from probvae.diagnostics.importance import ImportanceDiagnostic, importance_diagnostic, resample
from probvae.diagnostics.latent_usage import LatentUsageResult, latent_usage
from probvae.diagnostics.predictive_check import PredictiveCheckResult, predictive_check

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
