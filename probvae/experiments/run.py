"""A whole run from a recipe: data, fit, evaluation, folder."""

import json
import platform
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probvae.data import Dataset, RowsOnDisk, column_variances
from probvae.data.on_disk import blocks, rows_in
from probvae.diagnostics import GapResult
from probvae.diagnostics.ledger.unsplit import UnsplitLedger
from probvae.errors import CheckpointWarning, ConfigError, FitInterruptedError
from probvae.experiments.build import build_objective, build_vae
from probvae.experiments.recipe import Recipe, read_run_recipe, to_toml
from probvae.experiments.recipe_data import (
    as_tensor,
    binarized,
    check_magnitude,
    conditioned,
    load_recipe_data,
    raw_covariates,
    split,
    with_columns,
)
from probvae.experiments.summary import check_summary, evaluate, first_ledger, for_other_data, weight_summary
from probvae.foundation.process import launched_rank, num_launched
from probvae.foundation.seed import isolated_seed
from probvae.foundation.version import __version__
from probvae.inference import FitOptions, FitResult, Objective, fit
from probvae.inference.pair import VAE
from probvae.inference.training.processes import process_group
from probvae.models import covariates_for
from probvae.storage.run_folder import Run
from probvae.storage.untrusted import FORMAT

# The prior begins at a part of data that stay on the disk, which is read into memory: so many bytes
_STARTING_DATA = 16 * 2**20
# Characters in the name of a folder that is named after its data; the system's own limit is in bytes
_LONGEST_NAME = 50


@dataclass(frozen=True)
class Experiment:
    """The result of a run: the fitted VAE, the held-out data, the ledger where there is one, and the printed numbers.

    ``x`` (N, D) are the held-out data as they were evaluated: binary, where they are binarised at every use.
    """

    vae: VAE
    held_out: Dataset
    x: Tensor
    fit: FitResult
    gap: GapResult | UnsplitLedger | None
    summary: dict[str, Any]
    run: Run


def run_recipe(
    recipe: Recipe, out: str | Path | None = None, progress: bool = True, ledger: bool = True
) -> Experiment | None:
    """Fit a resolved recipe, evaluate it on held-out data, and write the run folder (without figures).

    With ``ledger``, the gaps are computed on up to 500 held-out data (150 where log p(x) takes quadrature, 50 where it
    takes annealing).

    ``out`` defaults to the next free ``runs/<data>-<number>``. Raises what :func:`probvae.fit` and
    :func:`probvae.load_data` raise, and leaves nothing behind when the data or the recipe are at fault.

    Processes that ``torchrun`` started fit together. All but the first then have nothing more to do, and get None.
    """
    folder = Path(out) if out is not None else next_folder(recipe["data"]["source"])
    if launched_rank() == 0:  # it may have made the folder before another process looks
        Run(folder).check_free()
    return _run(recipe, folder, progress, ledger, resume=False)


def resume_run(folder: str | Path, progress: bool = True, ledger: bool = True) -> Experiment | None:
    """Go on with a run that was stopped, from its newest checkpoint, and end it as :func:`run_recipe` would have.

    Raises :class:`~probvae.errors.RunError` for a folder that is no run, one that another process is writing, and one
    whose data have changed; differences between this machine and the first one are told by a
    :class:`~probvae.errors.CheckpointWarning`.
    """
    return _run(read_run_recipe(Path(folder)), Path(folder), progress, ledger, resume=True)


def _run(recipe: Recipe, folder: Path, progress: bool, ledger: bool, resume: bool) -> Experiment | None:
    start = time.perf_counter()
    data = load_recipe_data(recipe)
    environment = environment_of(recipe, data)
    if resume:
        Run(folder).check_unchanged(data.fingerprint())
        _tell_differences(Run(folder).read_json("environment.json"), environment)
    parts = _parts(recipe, data)
    files = {"config.toml": to_toml(parts.recipe), "environment.json": json.dumps(environment, indent=2) + "\n"}
    run, seed = Run(folder, files), recipe["training"]["seed"]
    with closing(run), _add_resume_hint(folder):
        with process_group() as processes:
            result = _fit(parts, run, progress, resume)
        if not processes.is_writer:
            return None
        vae = conditioned(recipe, for_other_data(parts.vae, parts.held_out, seed), parts.held_out)
        gap, gap_summary = first_ledger(vae, parts.held_out, seed) if ledger else (None, None)
        summary = {
            "data": data.name,
            **evaluate(vae, parts.held_out, seed),
            **weight_summary(vae, parts.objective),
            "gap": gap_summary,
            "num_train": parts.train.num_data,
            "num_held_out": parts.held_out.num_data,
            "epochs": len(result.history),
            "best_epoch": result.best_epoch,
            "stopped": result.stopped,
            "fit_seconds": result.history[-1]["seconds"],
            "seconds": round(result.seconds_before + time.perf_counter() - start, 3),
            "run": str(folder),
        }
        check_summary(summary)
        run.write_json("summary.json", summary)
    return Experiment(vae, parts.held_out, binarized(parts.held_out, seed), result, gap, summary, run)


class _Parts(NamedTuple):
    """The parts of a fit: the ``recipe`` with all that the data decide, the data with ``y``, the VAE, the objective."""

    recipe: Recipe
    train: Dataset
    held_out: Dataset
    y: np.ndarray | None
    vae: VAE
    objective: Objective


def _parts(recipe: Recipe, data: Dataset) -> _Parts:
    """Split and check the data, and build the VAE with weights that begin at the training data."""
    check_magnitude(data)
    seed = recipe["training"]["seed"]
    train, held_out = split(data, recipe["data"]["held_out"], seed)
    recipe = with_columns(recipe, data)
    y = raw_covariates(recipe, train)
    covariates = None if y is None else covariates_for(y)
    variance = float(column_variances(train.x).mean()) or 1.0
    vae = build_vae(recipe, data.data_dim, variance, train.num_data, covariates, data.image_shape)
    conditioned(recipe, vae, held_out)  # a label that training has not seen is found before the fit
    check_likelihood(vae, data, seed)  # and so are impossible held-out data
    start_from(vae, train, y, seed)
    return _Parts(recipe, train, held_out, y, vae, build_objective(recipe))


def _fit(parts: _Parts, run: Run, progress: bool, resume: bool) -> FitResult:
    train, training = parts.train, parts.recipe["training"]
    x = train.x if isinstance(train.x, RowsOnDisk) else as_tensor(train)
    # a guide that is not amortised knows only what it was trained on; a share of zero is none
    validation = (training["validation"] or None) if parts.vae.guide.amortized else None
    binarization = "fresh" if train.binarization == "fresh" else "none"
    options = FitOptions(**{**training, "binarization": binarization, "validation": validation})
    told: dict[str, Any] = {"objective": parts.objective, "progress": progress, "out": run, "resume": resume}
    return fit(parts.vae, x, y=parts.y, exposure=train.exposure, options=options, **told)


def check_likelihood(vae: VAE, data: Dataset, seed: int) -> None:
    """Raise unless the likelihood can have made the data; data on the disk are gone through block by block."""
    for _, rows in blocks(data.x):
        vae.model.likelihood.check_data(binarized(replace(data, x=rows), seed))


def start_from(vae: VAE, train: Dataset, y: np.ndarray | None, seed: int) -> None:
    """Let the prior and the guide begin at the training data; of data on the disk, at a random part."""
    if isinstance(train.x, RowsOnDisk):
        _check_amortized(vae)
        num = min(train.num_data, rows_in(_STARTING_DATA, train.x))
        rows = np.sort(np.random.default_rng(seed).choice(train.num_data, num, replace=False))
        train, y = train.take(rows).in_memory(), None if y is None else y[rows]
    x, covariates = as_tensor(train), vae.model.covariates
    inputs = x if covariates is None or y is None else torch.cat([x, covariates.encode(y)], dim=1)
    with isolated_seed(seed):
        vae.model.prior.start_from(inputs)
        vae.guide.start_from(inputs)


def _check_amortized(vae: VAE) -> None:
    if not vae.guide.amortized:
        raise ConfigError(
            "guide: one with parameters for each datum needs the data in memory, and they stay on the disk. Use "
            "'diagonal', or raise data.in_memory_limit."
        )


def evaluate(vae: VAE, data: Dataset, seed: int) -> dict[str, Any]:
    """The bound on ``data`` and its parts (nats per datum, standard errors over data), c, and the squared error.

    Raises :class:`~probvae.errors.FitError` where numbers that are not finite arise on the way.
    """
    with isolated_seed(seed), _refused_as_failed():
        x = binarized(data, seed)
        values = bound(vae, x, NUM_SAMPLES)
        error = reconstruction_error(vae, x)
    return {
        "elbo": mean_with_error(values.elbo),
        "log_likelihood": mean_with_error(values.log_likelihood),
        "kl": mean_with_error(values.kl),
        "is_bound": not getattr(vae.model.likelihood, "allow_grey", False),
        **variance_summary(vae, x),
        "likelihood": likelihood_summary(vae),
        "point": vae.model.likelihood.point_name,
        "reconstruction_error": mean_with_error(error),
    }


@contextmanager
def _refused_as_failed() -> Iterator[None]:
    """Numbers that overflow, as the error of a fit."""
    try:
        with raise_as_non_finite():
            yield
    except NonFiniteError as error:
        raise FitError(
            f"the numbers overflow on the held-out data ({short_reason(error)}). The weights are kept. Look for "
            "outliers, use scaling='standardize', or a smaller learning_rate."
        ) from error


def ledger_of(
    vae: VAE, data: Dataset, seed: int, truth: str = "auto", num_data: int | None = None
) -> tuple[GapResult | UnsplitLedger | None, dict[str, Any]]:
    """The ledger of gaps on the first data, and its means; or None and the reason why there is none.

    For a guide whose family cannot be searched it is the total alone, with the reason.
    """
    method = best_method(vae) if truth == "auto" else truth
    rows = slice(num_data or LEDGER_DATA.get(method, LEDGER_DATA["annealed"]))
    vae, x = vae.at(rows), binarized(data, seed)[rows]
    try:
        check_density(vae)
        with _refused_as_failed():
            gap = ledger_or_total(vae, x, truth=method, seed=seed)
    except ProbvaeError as error:  # a posterior that no grid covers, among others
        return None, {"not_computed": str(error)}
    entries = [gap.total.value, gap.truth.value, *([gap.approximation.value] if isinstance(gap, GapResult) else [])]
    num_bad = int((~torch.stack(entries).isfinite()).any(0).sum())
    if num_bad:
        return None, {"not_computed": f"log p(x) or a bound of it is not finite for {num_bad} of {len(x)} data"}
    # an error like that is a bound on what may hide between the nodes: the integral is not known at all
    unknown = gap.truth.standard_error > (1 + gap.truth.value.abs())
    if gap.truth.method == "quadrature" and unknown.any():
        return None, {
            "not_computed": f"log p(x) is not known for {int(unknown.sum())} of {len(x)} data: quadrature gives it to "
            f"{float(gap.truth.standard_error.max()):.2g} nats"
        }
    return gap, gap.summary()


def first_ledger(vae: VAE, data: Dataset, seed: int) -> tuple[GapResult | UnsplitLedger | None, dict[str, Any]]:
    """:func:`ledger_of` on as few data as a fit can wait for."""
    return ledger_of(vae, data, seed, num_data=_FIRST_LEDGER_DATA[best_method(vae)])


def weight_summary(vae: VAE, objective: Objective) -> dict[str, float]:
    """The KL's weight beta where it is not one, and for a fixed c the variance whose ELBO it amounts to."""
    if objective.beta == 1:
        return {}
    summary = {"beta": objective.beta}
    likelihood = vae.model.likelihood
    # another objective than the ELBO, or a c that is learned with it, has no such equivalent
    weighted_elbo = objective.registered_name in ("elbo", "analytic-kl", "stl") and not objective.free_bits
    if isinstance(likelihood, GaussianLikelihood) and likelihood.mode == "fixed" and weighted_elbo:
        c = float(likelihood.fixed_variance)
        summary["equivalent_variance"] = equivalent_variance(objective.beta, c)
    return summary


def likelihood_summary(vae: VAE) -> dict[str, float]:
    """What the likelihood has beside c: scales, dispersions; the mean where there are several."""
    likelihood = vae.model.likelihood
    if isinstance(likelihood, GaussianLikelihood):
        return {}  # its c has a place of its own
    with torch.no_grad():
        return {name: float(value.mean()) for name, value in likelihood.own_parameters().items()}


def variance_summary(vae: VAE, x: Tensor) -> dict[str, float | None]:
    """c (averaged where there are several) and Rocca's C = 1/(2c); None for a likelihood without a variance."""
    likelihood = vae.model.likelihood
    if not isinstance(likelihood, GaussianLikelihood):
        return {"variance": None, "squared_error_weight": None}
    with torch.no_grad():
        c = float(likelihood.variance(vae.model.decode(posterior_mean(vae, x))).mean())
    return {"variance": c, "squared_error_weight": 1 / (2 * c)}


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


def given(recipe: Recipe, vae: VAE, data: Dataset) -> VAE:
    """The VAE for the covariates and the exposure of ``data``; itself, where there are none."""
    y = raw_covariates(recipe, data)
    return vae if y is None and data.exposure is None else vae.given(y, data.exposure)


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

    Of data that stay on the disk at most 64 MB are held out, and these are read into memory.
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
    """The data as a torch tensor of the dtype that models are built in, in memory of its own where they are mapped."""
    x = np.ascontiguousarray(data.x)  # refused, with a way out, for data that stay on the disk
    # torch cannot share read-only memory
    return torch.from_numpy(x if x.flags.writeable else x.copy()).to(torch.get_default_dtype())


def binarized(data: Dataset, seed: int) -> Tensor:
    """The data as a tensor; those to be binarised at every use are binarised once, with ``seed``."""
    x = as_tensor(data)
    if data.binarization != "fresh":
        return x
    return torch.bernoulli(x, generator=torch.Generator().manual_seed(seed))


def next_folder(source: str) -> Path:
    """``runs/digits-001``, or the next number that is free."""
    stem = Path(source).stem[:_LONGEST_NAME] or "data"
    for number in range(1, 1_000_000):
        folder = Path("runs") / f"{stem}-{number:03d}"
        if not folder.exists():
            return folder
    raise ConfigError("out: a million runs are there already. Choose a folder yourself.")


def environment_of(recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """All that the numbers depend on beside the recipe: versions, threads, the data's fingerprint."""
    packages = ("torch", "pyro-ppl", "numpy", "scikit-learn")
    return {
        "format": FORMAT,
        "versions": {
            "python": platform.python_version(),
            "probvae": __version__,
            **{name: version(name) for name in packages},
        },
        "platform": platform.platform(),
        "seed": recipe["training"]["seed"],
        "device": recipe["training"]["device"],
        "num_threads": torch.get_num_threads(),
        "num_processes": num_launched(),
        "data": {"name": data.name, "shape": list(data.x.shape), "fingerprint": data.fingerprint()},
    }


@contextmanager
def _add_resume_hint(folder: Path) -> Iterator[None]:
    """Add to Ctrl-C or SIGTERM inside the block how to go on, where there is something to go on with."""
    try:
        yield
    except KeyboardInterrupt as error:
        if isinstance(error, FitInterruptedError) or not folder.exists():
            raise
        message = f"interrupted. Go on with: probvae fit --resume {folder}"
        raise FitInterruptedError(message, getattr(error, "signal_number", signal.SIGINT)) from error


def _tell_differences(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Warn of differences that decide about a number's last digits."""
    known, here = ({**part.get("versions", {}), **part} for part in (then, now))
    names = ("torch", "numpy", "platform", "num_threads", "num_processes")
    told = [f"{name} {known.get(name)} then, {here[name]} now" for name in names if known.get(name) != here[name]]
    if told:
        warnings.warn(
            f"resume: {'; '.join(told)}. The numbers may differ from those of an uninterrupted run in their last "
            "digits.",
            CheckpointWarning,
            stacklevel=4,
        )
