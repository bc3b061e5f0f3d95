"""Generalisation of inference: the ledger on training rows beside held-out rows."""

from collections.abc import Iterator

from probvae.diagnostics.ledger.generalisation import GeneralisationResult
from probvae.report.figures.training_figure import gaps_side_by_side
from probvae.report.sections.base import Drawn, Section, Subject, as_double


def figures(result: GeneralisationResult, subject: Subject) -> Iterator[Drawn]:
    """The gaps of both kinds of rows."""
    gaps = (as_double(ledger.total.value) for ledger in (result.training, result.held_out))
    yield Drawn("training-and-held-out", gaps_side_by_side(*gaps))


_PARTS = {
    "rows": "rows",
    "log_evidence": "log p(x)",
    "elbo": "ELBO",
    "total": "total gap",
    "approximation": "approximation",
    "amortisation": "amortisation",
}
GENERALISATION = Section(
    name="generalisation",
    title="Generalisation of inference",
    question="Does the encoder find the posterior of rows that it was not trained on as well as that of its training "
    "rows?",
    labels={
        "ledgers": "The ledger on training rows and on held-out rows, nats per datum",
        **{f"ledgers.{name}": label for name, label in _PARTS.items()},
        "compared": "entry that is compared",
        "difference": "held-out rows less training rows, nats per datum",
        "truth": "log p(x) comes from",
        "num_training": "number of training rows",
        "num_held_out": "number of held-out rows",
    },
    checks={"inference": "what the encoder costs more on held-out rows"},
    captions={
        "training-and-held-out": "The total gap of each training row (blue) and of each held-out row (orange), from "
        "the smallest to the largest. How to read it: a held-out line far above the other is an encoder that has "
        "overfitted. Good ones lie on each other.",
    },
    figures=figures,
)
