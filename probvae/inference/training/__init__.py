"""The fit: from a VAE and data to weights, by stochastic variational inference.

The door is :func:`~probvae.inference.training.fit.fit`, with its options in ``options``. In here: the data and their
minibatches (``training_data``, ``dataset_rows``, ``minibatches``), one step (``steps``), the epochs (``loop``), all
that a fit changes (``state``), its life on disk (``checkpoints``), several processes that share it (``processes``), and
what it shows (``progress``). The loop changes the state and tells a listener of it; the checkpoints listen.
``probabilistic_pca`` is the fit that has a closed form.

Not in here: what is maximised (``objectives``), how a step runs without Pyro's handlers (``compiled``), bounds of a
fitted pair (``evaluation``), and runs from recipes (:mod:`probvae.experiments`).
"""
