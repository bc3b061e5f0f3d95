"""The data of a recipe: loaded, checked, split into training and held-out rows, with their covariates."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from probvae.data import Dataset, RowsOnDisk, load_data
from probvae.data.on_disk import blocks, rows_in
from probvae.errors import ConfigError, DataError
from probvae.experiments.recipe import Recipe, merge, read_run_recipe
from probvae.inference.pair import VAE
from probvae.models import MixedLikelihood

# The value of model.condition that means the data's labels; anything else names columns
LABELS = "labels"
# Held-out data of data that stay on the disk are read into memory, up to so many bytes
_HELD_OUT_DATA = 64 * 2**20


def load_recipe_data(recipe: Recipe, source: str | None = None) -> Dataset:
    """The data of a recipe, or another ``source`` prepared in the same way."""
    arguments = {key: value for key, value in recipe["data"].items() if key != "held_out"}
    condition = recipe["model"].get("condition", LABELS)
    arguments["covariates"] = None if condition == LABELS else [condition] if isinstance(condition, str) else condition
    arguments["missing"] = recipe["model"].get("missing", "refuse")
    if source is not None:
        arguments["source"] = source
    return load_data(arguments.pop("source"), seed=recipe["training"]["seed"], **arguments)


def load_run_data(run: Path, source: str | None = None) -> Dataset:
    """The data of a run, or another ``source`` prepared in the same way.

    Nothing is downloaded into a folder that the run names: whoever made it, it is only read.
    """
    recipe = read_run_recipe(run)
    names_folder = source is None and "data_dir" in recipe["data"]
    return load_recipe_data(merge(recipe, {"data": {"download": False}}) if names_folder else recipe, source)


def split(data: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Training and held-out data, at random; the recipe's seed decides who is where.

    At most 64 MB are held out of data that stay on the disk, and these rows are read into memory.
    """
    if not 0 < share < 1:
        raise ConfigError(f"data.held_out: expected a share between 0 and 1, got {share:g}.")
    order = np.random.default_rng(seed).permutation(data.num_data)
    num = max(1, round(share * data.num_data))
    if isinstance(data.x, RowsOnDisk):
        num = min(num, rows_in(_HELD_OUT_DATA, data.x))
    if num >= data.num_data:
        raise ConfigError(f"data: expected at least two rows, got {data.num_data}. Give more data.")
    return data.take(np.sort(order[num:])), data.take(np.sort(order[:num])).in_memory()


def as_tensor(data: Dataset) -> Tensor:
    """The data as a tensor (N, D) of the dtype that models are built in, in memory of its own where they are mapped."""
    x = np.ascontiguousarray(data.x)  # refused, with a way out, for data that stay on the disk
    # torch cannot share read-only memory
    return torch.from_numpy(x if x.flags.writeable else x.copy()).to(torch.get_default_dtype())


def binarized(data: Dataset, seed: int) -> Tensor:
    """The data as a tensor (N, D); data to be binarised at every use are binarised once, with ``seed``."""
    x = as_tensor(data)
    if data.binarization != "fresh":
        return x
    return torch.bernoulli(x, generator=torch.Generator().manual_seed(seed))


def check_magnitude(data: Dataset) -> None:
    """Raise where the sum of a row's squares may overflow in the dtype that models are built in."""
    dtype = torch.get_default_dtype()
    most = (torch.finfo(dtype).max / data.data_dim) ** 0.5
    # no np.abs: it would take as much memory as the data
    ends = [(np.fmin.reduce(rows, axis=None), np.fmax.reduce(rows, axis=None)) for _, rows in blocks(data.x)]
    largest = max(max(-float(low), float(high)) for low, high in ends)
    if largest > most:
        raise DataError(
            f"data: expected magnitudes below {most:.1g}, whose squares fit into {dtype}, got {largest:.1g} in "
            f"{data.name}. Use scaling='standardize'."
        )


def with_columns(recipe: Recipe, data: Dataset) -> Recipe:
    """The recipe with the types of the columns in it, as far as a mixed likelihood was asked for without them."""
    table = recipe["model"]["likelihood"]
    if table["name"] != "mixed" or "columns" in table:
        return recipe
    if isinstance(data.x, RowsOnDisk):
        raise ConfigError(
            "model.likelihood.columns: the types of columns are guessed from data in memory, and these stay on the "
            "disk. Give columns."
        )
    columns = MixedLikelihood.guess(as_tensor(data)).arguments["columns"]
    return merge(recipe, {"model": {"likelihood": {"columns": columns}}})


def raw_covariates(recipe: Recipe, data: Dataset) -> np.ndarray | None:
    """y as it stands in the data: labels or columns, as the recipe says; None for a model without."""
    condition = recipe["model"].get("condition")
    if condition is None:
        return None
    if condition == LABELS and data.labels is None:
        raise ConfigError(f"model.condition: {data.name} has no labels. Name a column of it: data.labels='...'.")
    return data.labels if condition == LABELS else data.covariates


def conditioned(recipe: Recipe, vae: VAE, data: Dataset) -> VAE:
    """The VAE for the covariates and the exposure of ``data``; itself, where there are none."""
    y = raw_covariates(recipe, data)
    return vae if y is None and data.exposure is None else vae.given(y, data.exposure)
