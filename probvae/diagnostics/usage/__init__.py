"""Latent usage: what each latent carries, which latents are off, and whether the data fill the prior.

In: the rate and its parts (``latent_usage.py``), the marginals of single latents (``marginals.py``), posterior collapse
with the theory for linear models (``collapse.py``), and the test of all posteriors together against the prior
(``two_sample.py``). Out: closed forms of the KL (``probvae.inference.densities``).

The door is :func:`~probvae.diagnostics.usage.latent_usage.latent_usage`.
"""
