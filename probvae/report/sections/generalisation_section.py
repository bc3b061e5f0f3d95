"""Generalisation of inference: the ledger on training rows beside held-out rows."""

from probvae.report.sections.base import Section

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
)
