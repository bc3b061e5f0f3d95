"""Generalisation of inference: the ledger on rows that the encoder was trained on beside the ledger on other rows."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from probvae.diagnostics.ledger.gap import FAIL_GAP, WARN_GAP, GapResult
from probvae.diagnostics.ledger.unsplit import UnsplitLedger
from probvae.diagnostics.verdicts import FAIL, OK, WARN, HypothesisTest, Verdict, mean_with_error, with_error

NAME = "generalisation"
Ledger = GapResult | UnsplitLedger
_SIGMAS = 3.0


@dataclass(frozen=True)
class GeneralisationResult:
    """The ledger on ``training`` rows and on ``held_out`` rows, by the same method and draws."""

    training: Ledger
    held_out: Ledger

    @property
    def name(self) -> str:
        """The entry of the ledger that is compared: what the encoder costs, or the total where it is not split."""
        split = isinstance(self.training, GapResult) and isinstance(self.held_out, GapResult)
        return "amortisation" if split else "total"

    @property
    def difference(self) -> tuple[float, float]:
        """The entry on held-out rows less that on training rows, with the standard error of the two samples."""
        means = [mean_with_error(getattr(ledger, self.name).value) for ledger in (self.held_out, self.training)]
        values = [mean["value"] or 0.0 for mean in means]
        return values[0] - values[1], math.hypot(*(mean["standard_error"] or 0.0 for mean in means))

    def summary(self) -> dict[str, Any]:
        """Both ledgers side by side, as plain data."""
        value, error = self.difference
        rows = {"training": self.training, "held_out": self.held_out}
        return {
            "ledgers": [{"rows": name.replace("_", "-"), **_entries(ledger)} for name, ledger in rows.items()],
            "compared": self.name,
            "difference": {"value": value, "standard_error": error},
            "truth": self.training.truth.method,
            "num_training": len(self.training.total.value),
            "num_held_out": len(self.held_out.total.value),
        }

    def verdicts(self) -> list[Verdict]:
        """The verdict on what the encoder costs more on rows that it has not seen."""
        value, error = self.difference
        sure = value - _SIGMAS * error
        status = FAIL if sure > FAIL_GAP else WARN if sure > WARN_GAP else OK
        what = "The encoder" if self.name == "amortisation" else "The guide"
        told = f"{what} costs {_told(self.training, self.name)} nats on training rows and "
        told += f"{_told(self.held_out, self.name)} on held-out rows"
        message = told if status == OK else f"{told}: it has overfitted"
        return [Verdict(f"{NAME}/inference", status, value, FAIL_GAP, message)]

    def tests(self) -> list[HypothesisTest]:
        return []

    @property
    def overfitted(self) -> bool:
        """True where the encoder is surely worse on rows that it has not seen."""
        return self.verdicts()[0].status != OK


def _entries(ledger: Ledger) -> dict[str, Any]:
    values: dict[str, Tensor] = {
        "log_evidence": ledger.truth.value.double(),
        "elbo": ledger.truth.value.double() - ledger.total.value,
        "total": ledger.total.value,
    }
    if isinstance(ledger, GapResult):
        values |= {"approximation": ledger.approximation.value, "amortisation": ledger.amortisation.value}
    return {name: mean_with_error(value) for name, value in values.items()}


def _told(ledger: Ledger, name: str) -> str:
    mean = mean_with_error(getattr(ledger, name).value)
    return with_error(mean["value"] or 0.0, mean["standard_error"])
