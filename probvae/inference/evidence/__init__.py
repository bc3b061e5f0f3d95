"""log p(x) of each datum, by the best truth that the model allows.

In: the choice (``log_evidence``), adaptive integration for d <= 2 (``quadrature``, with ``cubature`` for the cells
and ``log_joint`` for the integrand), annealed importance sampling and its bracket (``annealing``), importance
sampling with the diagnosis of its weights (``importance_sampling``, ``pareto_smoothing``), the standard errors of both
(``log_mean_errors``), and a NUTS reference (``chains``).
Out: closed forms (``linear``), which ``log_evidence`` prefers; the split of log p(x) - ELBO
(``probvae.diagnostics``).
The door is :func:`~probvae.log_evidence`.
"""
