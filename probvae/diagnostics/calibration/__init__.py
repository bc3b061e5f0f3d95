"""Calibration: is the guide right on average, judged by pairs (z, x) whose true z is known?

In: pairs from the model or with draws of the exact posterior (``posterior_draws.py``), what is measured on them
(``measures.py``, by ``ranks.py``, ``tarp.py``, ``c2st.py`` and ``scores.py``), and the result with its eight tests
(``result.py``). Out: how pairs are simulated (``probvae.inference.evaluation.simulation``).

The doors are ``calibration``, ``calibration_on_data`` and ``calibrate_pairs`` in ``calibrate.py``.
"""
