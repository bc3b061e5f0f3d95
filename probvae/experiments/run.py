"""A whole run from a recipe: data, fit, evaluation, folder."""

import json
import os
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
    TRANSFORM,
    as_tensor,
    binarized,
    check_magnitude,
    conditioned,
    prepare_recipe_data,
    prepare_run_data,
    raw_covariates,
    split,
    with_columns,
)
from probvae.experiments.summary import check_summary, evaluate, first_ledger, for_other_data, weight_summary
from probvae.foundation.fit_options import flat
from probvae.foundation.package import __version__
from probvae.foundation.process import launched_rank, num_launched
from probvae.foundation.seed import isolated_seed
from probvae.inference import FitOptions, FitResult, Objective, fit
from probvae.inference.pair import VAE
from probvae.inference.training.processes import process_group
from probvae.models import covariates_for
from probvae.storage.run_folder import Run
from probvae.storage.untrusted import FORMAT

# The prior begins at a part of data that stay on the disk, which is read into memory: so many bytes
_STARTING_DATA = 16 * 2**20
# Keys that say where something is, and not what it is
_PLACES = ("data.source", "data.data_dir", "training.device")
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

    ``out`` defaults to the next free ``runs/<data>-<number>``, which fits that start together do not share. Raises what
    :func:`probvae.fit` and :func:`probvae.load_data` raise, and leaves nothing behind when the data or the recipe are
    at fault.

    Processes that ``torchrun`` started fit together. All but the first then have nothing more to do, and get None.
    """
    folders = free_folders(recipe["data"]["source"]) if out is None else iter([Path(out)])
    folder = next(folders)
    if launched_rank() == 0:  # it may have made the folder before another process looks
        Run(folder).check_free()
    return _run(recipe, Run(folder, others=folders), progress, ledger, resume=False)


def resume_run(folder: str | Path, progress: bool = True, ledger: bool = True) -> Experiment | None:
    """Go on with a run that was stopped, from its newest checkpoint, and end it as :func:`run_recipe` would have.

    Raises :class:`~probvae.errors.RunError` for a folder that is no run, one that another process is writing, and one
    whose data have changed; differences between this machine and the first one are told by a
    :class:`~probvae.errors.CheckpointWarning`.
    """
    return _run(read_run_recipe(Path(folder)), Run(folder), progress, ledger, resume=True)


def _run(recipe: Recipe, run: Run, progress: bool, ledger: bool, resume: bool) -> Experiment | None:
    start = time.perf_counter()
    loaded = prepare_run_data(run.folder) if resume else prepare_recipe_data(recipe)
    data = loaded.data
    environment = environment_of(recipe, data, data.fingerprint() if loaded.is_older else loaded.raw.fingerprint())
    if resume:
        _tell_differences(run.read_json("environment.json"), environment)
    parts = _parts(recipe, data)
    run.add_preamble({"config.toml": to_toml(parts.recipe), TRANSFORM: json.dumps(loaded.transform.as_data()) + "\n"})
    run.add_to_environment(environment)
    seed = recipe["training"]["seed"]
    with closing(run), _add_resume_hint(run):
        with process_group() as processes:
            # the data may lie in another place of each machine; their values are compared by the fit
            processes.check_settings({key: value for key, value in flat(parts.recipe) if key not in _PLACES})
            result = _fit(parts, run, progress, resume)
        if not processes.is_writer:
            return None
        vae = conditioned(recipe, for_other_data(parts.vae, parts.held_out, seed), parts.held_out)
        marks = [time.perf_counter()]
        values = evaluate(vae, parts.held_out, seed)
        marks.append(time.perf_counter())
        gap, gap_summary = first_ledger(vae, parts.held_out, seed) if ledger else (None, None)
        marks.append(time.perf_counter())
        summary = {
            "data": data.name,
            "scaling": data.scaling,
            **values,
            **weight_summary(vae, parts.objective),
            "gap": gap_summary,
            "num_train": parts.train.num_data,
            "num_held_out": parts.held_out.num_data,
            "epochs": len(result.history),
            "best_epoch": result.best_epoch,
            "stopped": result.stopped,
            "fit_seconds": result.history[-1]["seconds"],
            "evaluation_seconds": round(marks[1] - marks[0], 3),
            "ledger_seconds": round(marks[2] - marks[1], 3) if ledger else None,
            "seconds": round(result.seconds_before + time.perf_counter() - start, 3),
            "run": str(run.folder),
        }
        check_summary(summary)
        if isinstance(data.x, RowsOnDisk):
            data.x.check_unchanged()  # no summary mixes old data and new ones
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


def free_folders(source: str) -> Iterator[Path]:
    """``runs/digits-001``, or the next number that is free, and the free ones after it."""
    stem = Path(source).stem[:_LONGEST_NAME] or "data"
    for number in range(1, 1_000_000):
        folder = Path("runs") / f"{stem}-{number:03d}"
        if not os.path.lexists(folder):
            yield folder
    raise ConfigError("out: a million runs are there already. Choose a folder yourself.")


def environment_of(recipe: Recipe, data: Dataset, fingerprint: str | None = None) -> dict[str, Any]:
    """All that the numbers depend on beside the recipe: versions, threads, the data's ``fingerprint``.

    By default the fingerprint is that of the values in ``data``; a run has that of its raw data.
    """
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
        "data": {"name": data.name, "shape": list(data.x.shape), "fingerprint": fingerprint or data.fingerprint()},
    }


@contextmanager
def _add_resume_hint(run: Run) -> Iterator[None]:
    """Add to Ctrl-C or SIGTERM inside the block how to go on, where there is something to go on with."""
    try:
        yield
    except KeyboardInterrupt as error:
        if isinstance(error, FitInterruptedError) or not run.folder.exists():
            raise
        message = f"interrupted. Go on with: probvae fit --resume {run.folder}"
        raise FitInterruptedError(message, getattr(error, "signal_number", signal.SIGINT)) from error


def _versions(environment: dict[str, Any]) -> dict[str, Any]:
    """The versions, none where the file that had them was damaged."""
    versions = environment.get("versions")
    return versions if isinstance(versions, dict) else {}


def _tell_differences(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Warn of differences that decide about a number's last digits."""
    known, here = ({**_versions(part), **part} for part in (then, now))
    names = ("torch", "numpy", "platform", "num_threads", "num_processes")
    told = [f"{name} {known.get(name)} then, {here[name]} now" for name in names if known.get(name) != here[name]]
    if told:
        warnings.warn(
            f"resume: {'; '.join(told)}. The numbers may differ from those of an uninterrupted run in their last "
            "digits.",
            CheckpointWarning,
            stacklevel=4,
        )
