"""The ledger of gaps: what the posterior costs, and whether the guide's family or its encoder is at fault."""

from collections.abc import Iterator

from probvae.diagnostics.ledger.gap import Gap, GapResult
from probvae.diagnostics.ledger.unsplit import UnsplitLedger
from probvae.report.figures.ledger_figure import Mean, ledger, total_gap
from probvae.report.sections.base import Drawn, Section, Subject, as_double

_SPLIT = (
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


def figures(result: GapResult | UnsplitLedger, subject: Subject) -> Iterator[Drawn]:
    """The bar of the mean gaps, and how they are spread over the data; the total alone, where it is not split."""
    bound = _BOUND if result.truth.kind == "lower bound" else ""
    if isinstance(result, UnsplitLedger):
        figure = total_gap(as_double(result.total.value), _mean(result.total))
        yield Drawn("ledger", figure, {"text": _TOTAL + bound})
        return
    parts = result.approximation, result.amortisation
    first, second = (as_double(part.value) for part in parts)
    figure = ledger(first, second, (_mean(parts[0]), _mean(parts[1])))
    yield Drawn("ledger", figure, {"text": _SPLIT + bound})


def _mean(gap: Gap) -> Mean:
    mean = gap.mean()
    return Mean(mean["value"] or 0.0, mean["standard_error"])


LEDGER = Section(
    name="gap",
    title="The ledger",
    question="How many nats does the guide's posterior cost, and is its family at fault or its encoder? Total = "
    "approximation (the family) + amortisation (the encoder).",
    labels={
        "total": "total: log p(x) − ELBO = KL(q ‖ p(z|x)), nats per datum",
        "approximation": "approximation: what a richer guide could win",
        "amortisation": "amortisation: what a better encoder could win",
        "truth": "log p(x) comes from",
        "kind": "log p(x) is",
        "truth_error": "largest error of log p(x), nats",
        "num_data": "number of data",
        "num_converged": "data for which the best guide of the family was found",
        "not_split": "not split, because",
    },
    checks={"total": "distance to the posterior", "split": "family or encoder"},
    captions={"ledger": "{text}"},
    figures=figures,
)
