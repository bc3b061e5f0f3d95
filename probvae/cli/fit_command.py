"""`probvae fit`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from probvae.cli.run_options import memory_option
from probvae.experiments import recipe as recipes
from probvae.experiments.recipe import Recipe
from probvae.foundation.fit_options import OPTIONS

# option -> key of the recipe that it sets
KEYS = {
    "data": "data.source",
    "data_dir": "data.data_dir",
    "scaling": "data.scaling",
    "num_data": "data.num_data",
    "labels": "data.labels",
    "exposure": "data.exposure",
    "latent_dim": "model.latent_dim",
    "condition": "model.condition",
    "missing": "model.missing",
    "prior": "model.prior.name",
    "likelihood": "model.likelihood.name",
    "allow_grey": "model.likelihood.allow_grey",
    "variance": "model.likelihood.variance",
    "decoder": "model.decoder.name",
    "guide": "inference.guide.name",
    "encoder": "inference.encoder.name",
    "objective": "inference.objective.name",
    "num_particles": "inference.objective.num_particles",
    "beta": "inference.objective.beta",
    "free_bits": "inference.objective.free_bits",
    **{name: option.key for name, option in OPTIONS.items()},
}

# A recipe takes more values than a fit knows
_MORE_HELP = {"binarization": ["Data can be binarised once, too: fixed, threshold."]}

Function = TypeVar("Function", bound=Callable[..., Any])


def training_flags(function: Function) -> Function:
    """``function`` with a flag for every option of a fit, in their order."""
    for option in reversed(OPTIONS.values()):
        kind: Any = click.Choice([*option.words]) if option.words else option.types[-1]
        default = [] if option.recipe_default is None else [f"[default: {option.recipe_default}]"]
        text = " ".join([option.help, *_MORE_HELP.get(option.name, []), *default])
        function = click.option(option.flag, type=kind, metavar="NAME" if kind is str else None, help=text)(function)
    return function


@click.command("fit")
@click.argument("recipe_files", metavar="[RECIPE.toml ...]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", metavar="NAME|FILE", help="A named data set (`probvae list data`) or a file.")
@click.option("--data-dir", metavar="DIR", help="Where torchvision's data sets are, or go.")
@click.option("--labels", metavar="COLUMN", help="The column of a table that holds the labels (for colours).")
@click.option("--num-data", type=int, help="Use the first so many data only.")
@click.option("--scaling", metavar="NAME", help="none, unit or standardize.")
@click.option("--exposure", metavar="COLUMN", help="For counts: a column, or total (the sum of each row).")
@click.option("--condition", metavar="COLUMN,...", help="A conditional model p(x|z, y): labels, or columns of a table.")
@click.option("--missing", metavar="NAME", help="mask: NaN is a missing entry. refuse (default): it is an error.")
@click.option("--prior", metavar="NAME", help="See `probvae list priors`.")
@click.option("--likelihood", metavar="NAME", help="See `probvae list likelihoods`.")
@click.option("--variance", metavar="C", help="c: a number, learned, per-dimension, per-datum or optimal.")
@click.option("--allow-grey", is_flag=True, default=None, help="Grey data under a Bernoulli: no likelihood, no bound.")
@click.option("--decoder", metavar="NAME", help="See `probvae list decoders`.")
@click.option("--encoder", metavar="NAME", help="See `probvae list encoders`.")
@click.option("--guide", metavar="NAME", help="See `probvae list guides`.")
@click.option("--objective", metavar="NAME", help="See `probvae list objectives`.")
@click.option("--num-particles", type=int, help="Draws of z in one step (K of iwae).")
@click.option("--beta", type=float, help="The KL's weight.")
@click.option("--free-bits", type=float, help="Nats a latent dimension that cost nothing.")
@click.option("--latent-dim", type=int, help="d, the number of latent dimensions.")
@click.option("--hidden", metavar="W,W,...", help="Widths of the hidden layers of decoder and encoder.")
@training_flags
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any key of a recipe, e.g. training.epochs=20."
)
@click.option("--out", type=click.Path(path_type=Path), help="The run folder [default: runs/<data>-<number>].")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run that was stopped.")
@click.option("--gap/--no-gap", default=True, help="Say how wrong the posterior is, on held-out data.")
@click.option("--figures/--no-figures", default=True, help="Draw the pictures.")
@click.option("--progress/--no-progress", default=True, help="Show how far the fit has come.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of the table.")
@memory_option
def command(
    recipe_files: tuple[Path, ...],
    settings: tuple[str, ...],
    out: Path | None,
    resume: Path | None,
    gap: bool,
    figures: bool,
    progress: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit a VAE: the recipes from left to right, then the options on top.

    Without arguments: Rocca's VAE (two latent dimensions, c learned, diagonal guide) on handwritten digits.

    A fit that was stopped, however that came, goes on with --resume RUN and ends with the numbers that it would have
    had.
    """
    if resume is not None:
        _check_alone(recipe_files, settings, out, options)
        run(None, resume, gap, figures, progress, as_json)
        return
    recipe = recipes.resolve(
        [*map(recipes.read_recipe, recipe_files), *recipes_of_options(options), *map(recipes.parse_setting, settings)]
    )
    run(recipe, out, gap, figures, progress, as_json)


def _check_alone(recipe_files: tuple[Path, ...], settings: tuple[str, ...], out: Path | None, options: Any) -> None:
    changes = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    changes += ["--set"] * bool(settings) + ["--out"] * (out is not None) + list(map(str, recipe_files))
    if changes:
        raise click.UsageError(
            f"--resume: expected nothing that changes the run, got {', '.join(changes)}. A run goes on with the recipe "
            "that it was begun with; leave them out, or fit anew."
        )


def run(recipe: Recipe | None, out: Path | None, gap: bool, figures: bool, progress: bool, as_json: bool) -> None:
    """Fit, draw, print; without a recipe, go on with the run in ``out``."""
    from probvae.cli import output
    from probvae.experiments.run import resume_run, run_recipe

    with output.shown_warnings():
        if recipe is not None:
            experiment = run_recipe(recipe, out, progress, gap)
        else:
            assert out is not None
            experiment = resume_run(out, progress, gap)
        if experiment is None:
            return  # another process of the same fit tells of it
        if figures:
            from probvae.report.run_figures import draw_fit

            draw_fit(experiment)
    with output.kept_in(experiment.run.folder):
        if as_json:
            click.echo(json.dumps(experiment.summary))
        else:
            output.print_summary(experiment.summary)


def recipes_of_options(options: dict[str, Any]) -> list[Recipe]:
    """One small recipe for each flag on the command line."""
    hidden = options.pop("hidden")
    chosen = [(key, options[name]) for name, key in KEYS.items() if options[name] is not None]
    return [recipe_of(key, _value(key, value)) for key, value in chosen] + _hidden(hidden)


def recipe_of(key: str, value: Any) -> Recipe:
    """A recipe that sets one ``key`` ("model.prior.name")."""
    table, *path = key.split(".")
    for name in reversed(path):
        value = {name: value}
    return recipes.check_recipe({table: value})


def _value(key: str, value: Any) -> Any:
    if key.endswith(".variance"):
        return recipes.parse_value(value)
    if key.startswith("training."):
        return OPTIONS[key.removeprefix("training.")].words.get(value, value)
    return value.split(",") if key.endswith(".condition") and "," in value else value


def _hidden(text: str | None) -> list[Recipe]:
    if text is None:
        return []
    try:
        widths = [int(width) for width in text.split(",") if width.strip()]
    except ValueError as error:
        raise click.BadParameter(f"expected widths like 256,128, got {text!r}.", param_hint="--hidden") from error
    return [recipe_of("model.decoder.hidden", widths), recipe_of("inference.encoder.hidden", widths)]
