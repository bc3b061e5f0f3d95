"""Options and steps that the commands on a run share."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from probvae.applications import FittedRun
    from probvae.data import Dataset
    from probvae.inference.pair import VAE

run_argument = click.argument("run", type=click.Path(path_type=Path))
out_option = click.option("--out", type=click.Path(path_type=Path), help="Folder for the files [default: the run's].")
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="The seed of the draws."
)
truth_option = click.option(
    "--truth",
    type=click.Choice(["auto", "exact", "quadrature", "annealed", "importance"]),
    default="auto",
    show_default=True,
    help="Where log p(x) comes from.",
)
data_option = click.option("--data", metavar="NAME|FILE", help="Other data than the run's own.")

LEAST_MEMORY = 64 * 2**20
_UNITS = {"mb": 2**20, "gb": 2**30}


def _limit_memory(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Limit memory for the whole command, which gets no argument for it."""
    if value is not None:
        size = _num_bytes(value)
        if size < LEAST_MEMORY:
            raise click.BadParameter(f"expected at least 64MB, as in 512MB or 2GB, got {value!r}.", ctx, param)
        from probvae.inference.evaluation.memory import limited_memory

        ctx.with_resource(limited_memory(size))


def _num_bytes(text: str) -> int:
    """The bytes of a size like 512MB or 2GB; 0 for any other text."""
    try:
        return int(float(text[:-2]) * _UNITS.get(text[-2:].lower(), 0))
    except (ValueError, OverflowError):
        return 0


memory_option = click.option(
    "--memory-limit",
    metavar="SIZE",
    callback=_limit_memory,
    expose_value=False,
    help="Memory for evaluation, beside data and results, as in 2GB [default: 512MB].",
)


def opened_run(run: Path, source: str | None, held_out: bool = False) -> "FittedRun":
    """The run with its own data (or ``held_out`` rows), after a note that says which file they are, or ``source``."""
    from probvae.applications import open_run
    from probvae.cli.output import shown_warnings

    with shown_warnings():
        opened = open_run(run, source, held_out)
    _tell_path(run, source)
    return opened


def load_data_for(run: Path, vae: "VAE", source: str | None) -> "Dataset":
    """The run's own data, after a note that says which file they are, or ``source`` prepared in the same way."""
    from probvae.applications import fitted_run
    from probvae.cli.output import shown_warnings

    with shown_warnings():
        data = fitted_run.load_data_for(run, vae, source).data
    _tell_path(run, source)
    return data


def _tell_path(run: Path, source: str | None) -> None:
    """Note where the run's own data were read from, because whoever made the run has chosen the file."""
    from probvae.cli.output import note
    from probvae.data import DATASETS
    from probvae.experiments.recipe import read_run_recipe

    path = read_run_recipe(run)["data"]["source"]
    if source is None and path not in DATASETS:
        note(f"data: {Path(path).resolve()}, as the run says")


def write_table(file: Path, table: NamedTuple) -> str:
    """Write the arrays of a task's result to ``file``, and say what: ``codes.npz (mean, scale)``."""
    import numpy as np

    from probvae.storage.files import write_arrays

    arrays: dict[str, np.ndarray] = {}
    for name, value in table._asdict().items():
        if isinstance(value, np.ma.MaskedArray):  # an .npz file has no masks
            arrays |= {name: value.data, f"{name}_missing": np.ma.getmaskarray(value)}
        elif value is not None:
            arrays[name] = np.asarray(value)
    return f"{write_arrays(file, arrays).name} ({', '.join(arrays)})"


def covariates_from_text(vae: "VAE", text: str) -> object:
    """One label, or one row of numbers, from the text of `--given`."""
    from probvae.models import NumberCovariates

    if not isinstance(vae.model.covariates, NumberCovariates):
        return [text]
    try:
        return [[float(value) for value in text.split(",")]]
    except ValueError as error:
        raise click.BadParameter(f"expected numbers like 0.5,2, got {text!r}.", param_hint="--given") from error
