"""How wrong the posterior is, and where that comes from."""

from probvae.foundation.exports import export_public_names

from .calibration.c2st import C2ST as C2ST
from .calibration.c2st import c2st as c2st
from .calibration.calibrate import calibrate_pairs as calibrate_pairs
from .calibration.calibrate import calibration as calibration
from .calibration.calibrate import calibration_on_data as calibration_on_data
from .calibration.result import CalibrationResult as CalibrationResult
from .diagnose import diagnose as diagnose
from .ledger.gap import Gap as Gap
from .ledger.gap import GapResult as GapResult
from .ledger.gap import posterior_gap as posterior_gap
from .prediction.predictive_check import PredictiveCheckResult as PredictiveCheckResult
from .prediction.predictive_check import predictive_check as predictive_check
from .program_diagnosis import diagnose_program as diagnose_program
from .program_diagnosis import program_vae as program_vae
from .usage.latent_usage import LatentUsageResult as LatentUsageResult
from .usage.latent_usage import latent_usage as latent_usage
from .weights.distance_bounds import DistanceBounds as DistanceBounds
from .weights.distance_bounds import distance_bounds as distance_bounds
from .weights.importance import ImportanceDiagnostic as ImportanceDiagnostic
from .weights.importance import importance_diagnostic as importance_diagnostic
from .weights.importance import resample as resample

export_public_names(__name__)
