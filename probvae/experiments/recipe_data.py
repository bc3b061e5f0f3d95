"""The data of a recipe: loaded, checked, split into training and held-out rows, with their covariates."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probvae.data import DATASETS, Dataset, RowsOnDisk, Transform
from probvae.data.load import read_raw
from probvae.data.older_runs import OlderTransform, squeezed
from probvae.data.on_disk import blocks, rows_in
from probvae.data.raw_data import RawData
from probvae.errors import ConfigError, DataError, RunError
from probvae.experiments.recipe import Recipe, merge, read_run_recipe
from probvae.inference.pair import VAE
from probvae.models import Likelihood, MixedLikelihood
from probvae.storage.run_folder import Run
from probvae.storage.untrusted import read_run_json

# The value of model.condition that means the data's labels; anything else names columns
LABELS = "labels"
# The file of a run that holds its scaling
TRANSFORM = "transform.json"
# Held-out data of data that stay on the disk are read into memory, up to so many bytes
_HELD_OUT_DATA = 64 * 2**20


class RecipeData(NamedTuple):
    """The data of a recipe: ``raw`` in the units of the user, and ``data``, the same rows scaled by ``transform``.

    ``is_older``: they belong to a run that stores no transform, and its fingerprint is that of the scaled values.
    """

    raw: RawData
    transform: Transform
    data: Dataset
    is_older: bool = False

    def take(self, rows: np.ndarray | slice) -> "RecipeData":
        """The rows that ``rows`` selects."""
        return self._replace(raw=self.raw.take(rows), data=self.data.take(rows))


def read_recipe_data(recipe: Recipe, source: str | None = None) -> RawData:
    """The data of a recipe as they are, or another ``source`` with the same columns."""
    arguments = {key: value for key, value in recipe["data"].items() if key not in ("held_out", "scaling")}
    arguments.pop("binarization", None)
    condition = recipe["model"].get("condition", LABELS)
    arguments["covariates"] = None if condition == LABELS else [condition] if isinstance(condition, str) else condition
    arguments["missing"] = recipe["model"].get("missing", "refuse")
    if source is not None:
        arguments = {"source": source, **_for_other_data(arguments, source)}
    return read_raw(arguments.pop("source"), seed=recipe["training"]["seed"], **arguments)


def _for_other_data(arguments: dict[str, Any], source: str) -> dict[str, Any]:
    """Those arguments of a run that another source takes too: which rows to take, for one, is not among them."""
    takes = DATASETS[source].takes if source in DATASETS else ("labels",)
    kept = ("covariates", "exposure", "missing", "in_memory_limit", *takes)
    return {key: value for key, value in arguments.items() if key in kept}


def load_recipe_data(recipe: Recipe, source: str | None = None) -> Dataset:
    """The data of a recipe, or another ``source``, scaled by the statistics of the recipe's training rows."""
    prepared = prepare_recipe_data(recipe)
    if source is None:
        return prepared.data
    return _prepared(recipe, read_recipe_data(recipe, source), prepared.transform).data


def prepare_recipe_data(recipe: Recipe) -> RecipeData:
    """The data of a recipe, scaled by the statistics of its training rows."""
    raw = read_recipe_data(recipe)
    training = raw.take(split_rows(raw.data, recipe["data"]["held_out"], recipe["training"]["seed"])[0])
    return _prepared(recipe, raw, training.fit_transform(recipe["data"].get("scaling")))


def load_run_data(run: Path, source: str | None = None) -> Dataset:
    """The data of :func:`prepare_run_data`, scaled."""
    return prepare_run_data(run, source).data


def prepare_run_data(run: Path, source: str | None = None, data_dim: int | None = None) -> RecipeData:
    """The data of a run, or another ``source`` of the same columns, scaled as the run's training data were.

    Nothing is downloaded into a folder that the run names: whoever made it, it is only read.
    Raises :class:`~probvae.errors.RunError` where the run's own data have other values than when it was fitted, and
    :class:`~probvae.errors.DataError` for other data than of ``data_dim`` columns, the width of the run's model.
    """
    recipe = read_run_recipe(run)
    if source is None and "data_dir" in recipe["data"]:
        recipe = merge(recipe, {"data": {"download": False}})
    older = is_older_run(run)
    own = read_recipe_data(recipe) if source is None or (older and _is_scaled(recipe)) else None
    if older and own is not None:
        own = squeezed(own)
    transform = _older_transform(recipe, own) if older else read_transform(run)
    if own is not None:
        _check_width(run, own.data, data_dim)
        place = recipe["data"]["source"]
        if not older:
            Run(run).check_unchanged(own.fingerprint(), place)
        found = _prepared(recipe, own, transform)._replace(is_older=older)
        if older:
            Run(run).check_unchanged(found.data.fingerprint(), place)
        if source is None:
            return found
    other = read_recipe_data(recipe, source)
    _check_width(run, other.data, data_dim)
    return _prepared(recipe, squeezed(other) if older else other, transform)._replace(is_older=older)


def _check_width(run: Path, data: Dataset, data_dim: int | None) -> None:
    if data_dim is not None and data.data_dim != data_dim:
        raise DataError(
            f"data: {data.name} has {data.data_dim} columns, the model of {run} has {data_dim}. "
            "Give data of the width that the run was fitted to."
        )


def is_older_run(run: Path) -> bool:
    """True for a run of a format that stored no transform."""
    try:
        number = read_run_json(run, "environment.json").get("format", 0)
    except RunError:
        return not (run / TRANSFORM).exists()
    return isinstance(number, int) and number < 2


def read_transform(run: Path) -> Transform:
    """The scaling of a run, with the statistics of its training rows."""
    try:
        return Transform.from_data(read_run_json(run, TRANSFORM))
    except ValueError as error:
        raise RunError(f"{run}: {TRANSFORM} is damaged ({error}). Restore it, or fit it again.") from error


def _is_scaled(recipe: Recipe) -> bool:
    spec = DATASETS.get(recipe["data"]["source"])
    return (recipe["data"].get("scaling") or (spec.scaling if spec else "none")) != "none"


def _older_transform(recipe: Recipe, own: RawData | None) -> Transform:
    return Transform() if own is None else OlderTransform.of(own, recipe["data"].get("scaling"))


def _prepared(recipe: Recipe, raw: RawData, transform: Transform) -> RecipeData:
    bounds = Likelihood.named(recipe["model"]["likelihood"]["name"]).bounds
    data = raw.prepared(transform, recipe["data"]["binarization"], recipe["training"]["seed"], bounds)
    return RecipeData(raw, transform, data)


def split(data: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Training and held-out data, at random; the recipe's seed decides who is where.

    At most 64 MB are held out of data that stay on the disk, and these rows are read into memory.
    """
    train, held_out = split_rows(data, share, seed)
    return data.take(train), data.take(held_out).in_memory()


def split_rows(data: Dataset, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The row numbers of training and held-out data, each in their order: see :func:`split`."""
    if not 0 < share < 1:
        raise ConfigError(f"data.held_out: expected a share between 0 and 1, got {share:g}.")
    order = np.random.default_rng(seed).permutation(data.num_data)
    num = max(1, round(share * data.num_data))
    if isinstance(data.x, RowsOnDisk):
        num = min(num, rows_in(_HELD_OUT_DATA, data.x))
    if num >= data.num_data:
        raise ConfigError(f"data: expected at least two rows, got {data.num_data}. Give more data.")
    return np.sort(order[num:]), np.sort(order[:num])


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
