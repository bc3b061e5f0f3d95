"""The ledger of gaps: how many nats the guide's posterior costs, and whether its family or its encoder is at fault.

In: log p(x) - ELBO for each datum, split into approximation and amortisation (``gap.py``), and the total alone for
guides whose family cannot be searched (``unsplit.py``), and training rows beside held-out rows
(``generalisation.py``). Out: log p(x) itself (``probvae.inference.evidence``) and the
search for the best guide of a family (``probvae.inference.evaluation.refine``).

The door is :func:`~probvae.diagnostics.ledger.gap.posterior_gap`; for any guide it is
:func:`~probvae.diagnostics.ledger.unsplit.ledger_or_total`.
"""
