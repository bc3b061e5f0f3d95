"""The ledger of gaps as it stands in a report."""

import numpy as np
from numpy.typing import NDArray

from probvae.diagnostics.ledger.gap import Gap, GapResult
from probvae.diagnostics.ledger.unsplit import UnsplitLedger
from probvae.report.figures.ledger_figure import Mean, ledger, total_gap
from probvae.report.illustration import Illustration
from probvae.report.tensors import as_double

_CAPTION = (
    "Above: the mean gap in nats per datum, split into what a richer family could win (approximation, blue) and what a "
    "better encoder could (amortisation, orange); whiskers are one standard error. Below: at 80 % stands the gap that "
    "80 % of the data stay below. How to read it: work on the longer part first. A good one is a bar of a few "
    "hundredths of a nat, and lines that stay near zero to the right end."
)
_TOTAL = (
    "The gap of each datum, from the smallest to the largest: at 80 % stands the gap that 80 % of the data stay below. "
    "How to read it: a line that rises at the right end only says that a few data carry the loss. A good one stays "
    "near zero to the right end."
)
_BOUND = " log p(x) is a lower bound here, and so are the total and the approximation gap."


def illustrations(result: GapResult | UnsplitLedger) -> list[Illustration]:
    """The bar of the mean gaps, and how they are spread over the data; of the total only, where it is not split."""
    bound = _BOUND if result.truth.kind == "lower bound" else ""
    if isinstance(result, UnsplitLedger):
        return [Illustration("ledger", total_gap(_values(result.total), _mean(result.total)), _TOTAL + bound)]
    parts = result.approximation, result.amortisation
    figure = ledger(_values(parts[0]), _values(parts[1]), (_mean(parts[0]), _mean(parts[1])))
    return [Illustration("ledger", figure, _CAPTION + bound)]


def _values(gap: Gap) -> NDArray[np.float64]:
    return as_double(gap.value)


def _mean(gap: Gap) -> Mean:
    mean = gap.mean()
    return Mean(mean["value"] or 0.0, mean["standard_error"])
