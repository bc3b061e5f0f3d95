"""The report of a run folder: its VAE, its held-out data, and how it was fitted."""

from pathlib import Path
from typing import Any

from probvae.data import Dataset
from probvae.diagnostics.convergence import TrainedOn
from probvae.errors import DataError, RunError
from probvae.experiments.recipe import Recipe, read_run_recipe
from probvae.experiments.recipe_data import binarized, conditioned, split
from probvae.experiments.summary import for_other_data
from probvae.inference.pair import VAE
from probvae.report.build_report import Options, Progress, Report, Source, subject_line, write_report
from probvae.storage.untrusted import parse_object, read_run_json, read_run_text


def report_run(
    run: Path,
    vae: VAE,
    data: Dataset,
    options: Options,
    folder: Path,
    *,
    held_out: bool = True,
    command: str = "",
    progress: Progress = lambda name, number, total: None,
) -> Report:
    """:func:`~probvae.report.build_report.write_report` for the ``vae`` of a ``run``.

    Where ``held_out``, ``data`` are the run's own, and the rows that it was not trained on are taken; otherwise all
    rows are. ``command`` is what the user typed.

    Raises :class:`~probvae.errors.RunError` for a run that is not whole, or whose data have changed,
    :class:`~probvae.errors.DataError` for more data than there are, and what ``write_report`` raises.
    """
    recipe = read_run_recipe(run)
    seed = recipe["training"]["seed"]
    trained_on = None
    if held_out:
        train, data = split(data, recipe["data"]["held_out"], seed)
        trained_on = _trained_on(run, recipe, vae, train, options)
    kind = f"{'held-out data' if held_out else 'data'} of {data.name}"
    num_there = data.num_data
    if options.num_data is not None and options.num_data > num_there:
        raise DataError(
            f"num_data: expected at most {num_there}, the {kind} that there are, got "
            f"{options.num_data}. Leave it out, or give more data."
        )
    data = data.take(slice(options.most_data))
    about = {
        "Command": command or "probvae report",
        "Run": str(run),
        "Fitted to": str(recipe["data"]["source"]),
        "Seed of the fit": str(seed),
        "Versions of the fit": _versions_of_fit(run),
    }
    source = Source(
        conditioned(recipe, for_other_data(vae, data, options.seed), data),
        binarized(data, options.seed),
        data,
        f"Posterior report: {run.resolve().name}",
        subject_line(data, vae.model.latent_dim, num_there, kind),
        about,
        trained_on,
    )
    return write_report(source, options, folder, owned=folder == run, progress=progress)


def _trained_on(run: Path, recipe: Recipe, vae: VAE, train: Dataset, options: Options) -> TrainedOn:
    """As many of the training rows as the report takes of the others, and the fit's history, where it can be read."""
    some = train.take(slice(options.most_data)).in_memory()
    pair = conditioned(recipe, for_other_data(vae, some, options.seed), some)
    objective = recipe["inference"]["objective"]["name"]
    return TrainedOn(pair, binarized(some, options.seed), _history(run), objective)


def _history(run: Path) -> list[dict[str, Any]] | None:
    try:
        lines = read_run_text(run, "metrics.jsonl").splitlines()
        return [parse_object(line, "metrics.jsonl") for line in lines]
    except RunError:
        return None


def _versions_of_fit(run: Path) -> str:
    """The versions that the run was fitted with; with other data nothing has asked for them before."""
    try:
        versions = read_run_json(run, "environment.json")["versions"]
        return ", ".join(f"{name} {version}" for name, version in versions.items())
    except (RunError, KeyError, AttributeError):
        return "not known: environment.json is missing or damaged"
