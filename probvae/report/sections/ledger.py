"""The ledger of gaps as it stands in a report."""

from probvae.diagnostics.gap import Gap, GapResult
from probvae.report.figures.ledger import Mean, ledger
from probvae.report.illustration import Illustration

_CAPTION = (
    "Above: the mean gap in nats per datum, split into what a richer family could win (approximation, blue) and what a "
    "better encoder could (amortisation, orange); whiskers are one standard error. Below: at 80 % stands the gap that "
    "80 % of the data stay below. How to read it: work on the longer part first. A good one is a bar of a few "
    "hundredths of a nat, and lines that stay near zero to the right end."
)
_BOUND = " log p(x) is a lower bound here, and so are the total and the approximation gap."


def illustrations(result: GapResult) -> list[Illustration]:
    """The bar of the mean gaps, and how they are spread over the data."""
    parts = result.approximation, result.amortisation
    approximation, amortisation = (gap.value.double().cpu().numpy() for gap in parts)
    figure = ledger(approximation, amortisation, (_mean(parts[0]), _mean(parts[1])))
    return [Illustration("ledger", figure, _CAPTION + _BOUND * (result.truth.kind == "lower bound"))]


def _mean(gap: Gap) -> Mean:
    mean = gap.mean()
    return Mean(mean["value"] or 0.0, mean["standard_error"])
