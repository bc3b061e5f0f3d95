"""A fitted run and data to use it on: the run's own, or others that are prepared in the same way."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from probvae.data import Dataset
from probvae.errors import DataError
from probvae.experiments.recipe import read_run_recipe
from probvae.experiments.recipe_data import as_tensor, conditioned, load_run_data, split
from probvae.inference.pair import VAE, load


@dataclass(frozen=True)
class FittedRun:
    """``vae`` of a run, at the covariates and exposure of ``data``, and the values ``x`` (N, D) of ``data``.

    A missing entry of ``x`` is NaN.
    """

    vae: VAE
    data: Dataset
    x: Tensor


def open_run(run: str | Path, source: str | None = None, held_out: bool = False) -> FittedRun:
    """The VAE of the folder ``run`` with its own data, or with the named data set or file ``source``.

    With ``held_out``, only the rows that the run was not trained on. Other data are scaled and binarised as the run's
    were. Raises :class:`~probvae.errors.RunError` for a folder that is no run, and
    :class:`~probvae.errors.DataError` for data of another width than the model's.
    """
    vae, recipe = load(run), read_run_recipe(Path(run))
    data = load_data_for(Path(run), vae, source)
    if held_out:
        data = split(data, recipe["data"]["held_out"], recipe["training"]["seed"])[1]
    return FittedRun(conditioned(recipe, vae, data), data, as_tensor(data))


def load_data_for(run: Path, vae: VAE, source: str | None = None) -> Dataset:
    """The run's own data, or ``source`` prepared in the same way, checked against the width of ``vae``."""
    data = load_run_data(run, source)
    if data.data_dim != vae.model.data_dim:
        raise DataError(
            f"data: {data.name} has {data.data_dim} columns, the model of {run} has {vae.model.data_dim}. "
            "Give data of the width that the run was fitted to."
        )
    return data
