"""Experiments: from a recipe, which is a TOML file, to a run folder, and several runs beside each other.

The doors are :func:`~probvae.experiments.run.run_recipe` and :func:`~probvae.experiments.compare.compare`. In here:
recipes as data (``recipe``), their names turned into objects (``build``), the data that they name (``recipe_data``), a
whole run (``run``) and its numbers on held-out data (``summary``), runs beside each other (``compare``), those that
differ in their seed alone (``over_seeds``), and fits of all combinations of options (``sweep``).

Not in here: the fit itself (:mod:`probvae.inference.training`), files of a run (:mod:`probvae.storage`), verdicts
(:mod:`probvae.diagnostics`), pages and pictures (:mod:`probvae.report`), and what a terminal shows (``cli``).
"""
