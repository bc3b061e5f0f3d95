"""Numbers of a fitted pair for each datum, in memory that does not grow with the data.

In: the ELBO, its parts and reconstructions (``bounds``); tiles of rows and blocks of draws (``row_tiles``), planned
by the memory limit and the bytes of a draw (``memory``) and evaluated side by side (``threads``); the best member of
the guide's family for each datum (``refine``), c from the data (``variance``), missing entries (``imputation``),
pairs (z, x) from the model (``simulation``).
Out: log p(x) itself (``evidence``); verdicts about these numbers (``probvae.diagnostics``).
The door is :func:`~probvae.elbo`; a new number of each datum goes through
:func:`~probvae.inference.evaluation.row_tiles.over_tiles` or ``drawn_tiles``.
"""
