"""Importance weights p(x, z) / q(z): can they correct the guide, and how far can it be from the posterior?

In: Pareto k and effective sample size for each datum with draws that are weighted (``importance.py``), and bounds on
the distance of means and standard deviations (``distance_bounds.py``). Out: the smoothing of weights and their estimate
of log p(x) (``probvae.inference.evidence``).

The door is :func:`~probvae.diagnostics.weights.importance.importance_diagnostic`.
"""
