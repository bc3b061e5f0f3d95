"""How wrong the posterior is, and where that comes from."""

from probvae.diagnostics.gap import Gap, GapResult, posterior_gap

__all__ = ["Gap", "GapResult", "posterior_gap"]
