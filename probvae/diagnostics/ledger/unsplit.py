"""The gap alone, for guides whose family cannot be searched."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probvae.diagnostics.ledger.gap import (
    NUM_SAMPLES,
    Gap,
    GapResult,
    monte_carlo_error,
    posterior_gap,
    total_gap_verdict,
)
from probvae.diagnostics.verdicts import NOT_COMPUTED, HypothesisTest, Verdict
from probvae.foundation.checks import check_count
from probvae.foundation.seed import isolated_seed
from probvae.inference.evaluation.refine import not_refinable
from probvae.inference.evaluation.row_tiles import tiles
from probvae.inference.evidence.importance_sampling import weighted_draws
from probvae.inference.evidence.log_evidence import Estimate, log_evidence
from probvae.inference.pair import VAE, check_data, in_double


@dataclass(frozen=True)
class UnsplitLedger:
    """log p(x) - ELBO for each datum, with its ``truth``, and the ``reason`` why it is not split in two."""

    total: Gap
    truth: Estimate
    reason: str

    def summary(self) -> dict[str, Any]:
        """The mean, as plain data."""
        return {
            "total": self.total.mean(),
            "not_split": self.reason,
            "truth": self.truth.method,
            "kind": self.truth.kind,
            "truth_error": float(self.truth.standard_error.max()),
            "num_data": len(self.total.value),
        }

    def verdicts(self) -> list[Verdict]:
        """The verdict on the total gap, and one that says why its parts are not known."""
        reason = f"The gap is not split into the family's part and the encoder's: {self.reason}"
        split = Verdict("gap/split", NOT_COMPUTED, None, None, reason)
        return [total_gap_verdict(self.total, self.truth), split]

    def tests(self) -> list[HypothesisTest]:
        return []


def total_gap(
    vae: VAE, x: Tensor, reason: str, *, truth: str = "auto", num_samples: int = NUM_SAMPLES, seed: int = 0
) -> UnsplitLedger:
    """The total of :func:`~probvae.posterior_gap` for any guide at ``x`` (N, D); ``reason`` says why it is not split.

    >>> import probvae
    >>> gap = total_gap(probvae.VAE.example(), torch.zeros(5, 3), "not asked for").total
    >>> gap.value.shape
    torch.Size([5])
    """
    check_count(num_samples, "num_samples", least=2)
    vae, x = in_double(vae, x)
    evidence = log_evidence(vae, x, truth, seed=seed)
    with isolated_seed(seed, x.device):
        parts = [weighted_draws(part, rows, num_samples, seed).log_weights for part, rows in tiles(vae, x, num_samples)]
    log_w = torch.cat(parts, dim=1)
    error = (monte_carlo_error(log_w).square() + evidence.standard_error.double().square()).sqrt()
    return UnsplitLedger(Gap(evidence.value.double() - log_w.mean(0), error), evidence, reason)


def ledger_or_total(
    vae: VAE, x: Tensor, *, truth: str = "auto", num_samples: int = NUM_SAMPLES, seed: int = 0
) -> GapResult | UnsplitLedger:
    """:func:`~probvae.posterior_gap`, or :func:`total_gap` with the reason where the guide's family cannot be searched.

    ``x`` is (N, D). Nats per datum. Raises what these functions raise.

    >>> import probvae
    >>> ledger_or_total(probvae.VAE.example(), torch.zeros(5, 3)).summary()["num_converged"]
    5
    """
    check_data(vae, x)
    options: dict[str, Any] = {"truth": truth, "num_samples": num_samples, "seed": seed}
    reason = not_refinable(vae, x)
    return posterior_gap(vae, x, **options) if reason is None else total_gap(vae, x, reason, **options)
