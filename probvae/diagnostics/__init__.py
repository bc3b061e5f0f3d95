"""How wrong the posterior is, and where that comes from."""

from probvae.diagnostics.gap import Gap, GapResult, posterior_gap
from probvae.diagnostics.importance import ImportanceDiagnostic, importance_diagnostic, resample

__all__ = ["Gap", "GapResult", "ImportanceDiagnostic", "importance_diagnostic", "posterior_gap", "resample"]
