"""The ledger of gaps as it stands in a report."""

from probvae.diagnostics.gap import GapResult
from probvae.report.figures.ledger import Mean, ledger
from probvae.report.illustration import Illustration

_CAPTION = (
    "Above: the mean gap in nats per datum, split into what a richer family could win (approximation, blue) and what a "
    "better encoder could (amortisation, orange); whiskers are one standard error. Below: at 80 % stands the gap that "
    "80 % of the data stay below. How to read it: work on the longer part first. A good one is a bar of a few hundredths "
    "of a nat, and lines that stay near zero to the right end."
)
_BOUND = " log p(x) is a lower bound here, and so are the total and the approximation gap."


def illustrations(result: GapResult) -> list[Illustration]:
    """The bar of the mean gaps, and how they are spread over the data."""
    means = tuple(Mean(*gap.mean().values()) for gap in (result.approximation, result.amortisation))  # type: ignore[arg-type]
    arrays = (gap.value.double().cpu().numpy() for gap in (result.approximation, result.amortisation))
    caption = _CAPTION + (_BOUND if result.truth.kind == "lower bound" else "")
    return [Illustration("ledger", ledger(*arrays, means=means), caption)]  # type: ignore[arg-type]
