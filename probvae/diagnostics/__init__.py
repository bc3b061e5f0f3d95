"""How wrong the posterior is, and where that comes from."""

from probvae.diagnostics.distance_bounds import DistanceBounds, distance_bounds
from probvae.diagnostics.gap import Gap, GapResult, posterior_gap
from probvae.diagnostics.importance import ImportanceDiagnostic, importance_diagnostic, resample

__all__ = [
    "DistanceBounds",
    "Gap",
    "GapResult",
    "ImportanceDiagnostic",
    "distance_bounds",
    "importance_diagnostic",
    "posterior_gap",
    "resample",
]
