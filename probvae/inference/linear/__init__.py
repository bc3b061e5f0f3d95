"""Closed forms: posterior, evidence, imputation and gaps of models with a linear decoder and Gaussian noise.

In: recognition of such a model (``closed_form_model``), its posterior and log evidence (``exact``), missing entries
given the observed ones (``exact_imputation``), and the loss of restricted Gaussian families (``gaussian_gaps``).
Out: the closed-form fit (``training.probabilistic_pca``), the guide that wraps the posterior
(``guides.exact_guide``), and estimates for all other models (``evidence``).
The door is :func:`~probvae.inference.exact_posterior`.
"""
