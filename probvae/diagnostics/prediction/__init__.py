"""Prediction: could the data have come from the model?

In: statistics of the data among those of data sets from the model (``data_statistics.py``, with p-values by
``monte_carlo.py``), log p(x) beside that of simulated data (``typicality.py``), and leave-one-out prediction
(``loo.py``). Out: log p(x) itself (``probvae.inference.evidence``).

The door is :func:`~probvae.diagnostics.prediction.predictive_check.predictive_check`.
"""
