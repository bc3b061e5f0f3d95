"""Diagnostics: how wrong the posterior of a VAE is, where that comes from, and whether the model fits the data.

In: functions of a VAE and rows x (N, D) whose results have numbers for each datum and three methods: ``summary``,
``verdicts`` and ``tests`` (``verdicts.py`` has this contract, and the sizes that matter). ``ledger/`` says how many
nats the guide costs, why, and whether more on rows that it was not trained on, ``weights/`` whether weights can correct
it, ``calibration/`` whether it is right on average, ``usage/`` how much the latents carry, ``prediction/`` whether the
model makes data like these, ``convergence.py`` whether it was trained long enough. ``advice.py`` says what to try next,
and ``program_diagnosis.py`` takes a model and a guide written in Pyro. Out: log p(x) and the bounds themselves
(``probvae.inference``), and figures and pages (``probvae.report``).

The door is :func:`diagnose`, which runs them all.
"""

from probvae.foundation.package import export_public_names

from .calibration.c2st import C2ST as C2ST
from .calibration.c2st import c2st as c2st
from .calibration.calibrate import calibrate_pairs as calibrate_pairs
from .calibration.calibrate import calibration as calibration
from .calibration.calibrate import calibration_on_data as calibration_on_data
from .calibration.result import CalibrationResult as CalibrationResult
from .convergence import TrainedOn as TrainedOn
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
