"""A fitted run and data to use it on: the run's own, or others that are prepared in the same way."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from probvae.data import Dataset
from probvae.experiments.recipe import read_run_recipe
from probvae.experiments.recipe_data import RecipeData, as_tensor, conditioned, prepare_run_data, split_rows
from probvae.inference.pair import VAE, load


@dataclass(frozen=True)
class FittedRun:
    """``vae`` of a run, at the covariates and exposure of ``data``, and the values ``x`` (N, D) of ``data``.

    A missing entry of ``x`` is NaN. ``raw`` are the same rows before scaling, in the units of the user, and
    ``data.in_user_units`` takes values of the model there.
    """

    vae: VAE
    data: Dataset
    x: Tensor
    raw: Dataset

    def original(self) -> Tensor:
        """The rows (N, D) in the units of the user, exactly as they were read; binarised data stay binary."""
        if self.data.binarization != "none" or self.data.transform.is_identity:
            return self.x
        return torch.from_numpy(np.array(self.raw.x, dtype=np.float64))  # a copy: torch shares no read-only memory


def in_user_units(data: Dataset, values: Tensor) -> Tensor:
    """``values`` (..., D) of a model of ``data``, such as reconstructions, in the units of the user."""
    return torch.as_tensor(data.in_user_units(values.cpu().numpy()))


def open_run(run: str | Path, source: str | None = None, held_out: bool = False) -> FittedRun:
    """The VAE of the folder ``run`` with its own data, or with the named data set or file ``source``.

    With ``held_out``, only the rows that the run was not trained on. Other data are scaled by the statistics of the
    run's training rows, and binarised as these were. Raises :class:`~probvae.errors.RunError` for a folder that is no
    run, or whose own data have changed, and :class:`~probvae.errors.DataError` for data of another width than the
    model's.
    """
    vae, recipe = load(run), read_run_recipe(Path(run))
    loaded = load_data_for(Path(run), vae, source)
    if held_out:
        loaded = loaded.take(split_rows(loaded.data, recipe["data"]["held_out"], recipe["training"]["seed"])[1])
    data = loaded.data.in_memory() if held_out else loaded.data
    return FittedRun(conditioned(recipe, vae, data), data, as_tensor(data), loaded.raw.data)


def load_data_for(run: Path, vae: VAE, source: str | None = None) -> RecipeData:
    """The run's own data, or ``source`` scaled in the same way, checked against the width of ``vae``."""
    return prepare_run_data(run, source, vae.model.data_dim)
