"""`probvae compare`."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probvae.cli.fit_command import KEYS, recipe_of, recipes_of_options
from probvae.cli.fit_command import command as fit_command
from probvae.cli.run_options import memory_option
from probvae.experiments import recipe as recipes
from probvae.experiments.recipe import Recipe
from probvae.foundation.text import printable

if TYPE_CHECKING:
    from probvae.experiments.compare import Comparison, Difference, Entry

# The axis of a sweep that sets two keys of the recipe
HIDDEN = "hidden"
RESULT = "compare.json"


@click.command("compare")
@click.argument("arguments", metavar="RUN... | [RECIPE.toml ...] [NAME=VALUE,...]", nargs=-1)
@click.option("--sweep", metavar="NAME=VALUE,...", multiple=True, help="Fit all combinations, e.g. prior=vamp,mixture.")
@click.option("--baseline", metavar="NAME", help="The run that the others are compared with [default: the best ELBO].")
@click.option("--out", type=click.Path(path_type=Path), default=Path("comparison"), show_default=True, help="Folder.")
@click.option("--figures/--no-figures", default=True, help="Draw the pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print compare.json instead of the table.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any key of the recipe, for all fits.")
@memory_option
def command(
    arguments: tuple[str, ...],
    sweep: tuple[str, ...],
    settings: tuple[str, ...],
    baseline: str | None,
    out: Path,
    figures: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare runs on the same held-out data, with paired differences and their standard errors.

    Give finished runs, or `--sweep prior=standard-normal,mixture guide=diagonal,flow variance=0.1,learned` to fit all
    combinations into folders below --out (what is there already is not fitted again). The options of `probvae fit`
    hold for all these fits. Writes compare.json and pictures.
    """
    from probvae.cli.output import shown_warnings
    from probvae.experiments.compare import compare
    from probvae.storage.files import staged

    common = [*recipes_of_options(options), *map(recipes.parse_setting, settings)]
    with shown_warnings(), staged(out, RESULT) as stage:  # fits of hours do not wait for a folder that takes no file
        if sweep:
            axes = [*sweep, *(text for text in arguments if "=" in text)]
            files = [text for text in arguments if "=" not in text]
            entries, failures = _fit(files, axes, common, out)
        else:
            entries, failures = _read(arguments, common)
        result = compare(entries, baseline, failures)
        _write(result, stage, figures)
    if as_json:
        click.echo(json.dumps(_as_data(result)))
    else:
        _print(result, out)


command.params += [parameter for parameter in fit_command.params if parameter.name in (*KEYS, HIDDEN)]


def _read(arguments: tuple[str, ...], common: list[Recipe]) -> tuple[list["Entry"], dict[str, str]]:
    from probvae.experiments.compare import read_runs

    if common or any("=" in text for text in arguments):
        raise click.UsageError("settings are for fits: give --sweep NAME=VALUE,... with them.")
    if not arguments:
        raise click.UsageError("give run folders, or --sweep NAME=VALUE,... to fit some.")
    with _progress() as advance:
        return read_runs([Path(run) for run in arguments], advance), {}


def _fit(files: list[str], axes: list[str], common: list[Recipe], out: Path) -> tuple[list["Entry"], dict[str, str]]:
    from probvae.experiments.sweep import parse_sweep, run_sweep

    recipe = recipes.resolve([*(recipes.read_recipe(Path(file)) for file in files), *common])
    chosen = parse_sweep(axes, {**KEYS, HIDDEN: HIDDEN})
    with _progress() as advance:
        return run_sweep(recipe, chosen, out, _recipe_of, advance)


def _recipe_of(key: str, value: Any) -> Recipe:
    if key != HIDDEN:
        return recipe_of(key, value)
    widths = value if isinstance(value, list) else [value]
    return recipes.merge(recipe_of("model.decoder.hidden", widths), recipe_of("inference.encoder.hidden", widths))


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the runs, on stderr; lines where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from probvae.cli.output import plain

    console = Console(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        yield lambda name, number, total: console.print(plain(f"{number}/{total} {name}"), highlight=False)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("")
        yield lambda name, number, total: bar.update(
            task, completed=number - 1, total=total, description=printable(name)
        )


def _write(result: "Comparison", stage: Path, figures: bool) -> None:
    from probvae.storage.files import write_text

    write_text(stage / RESULT, json.dumps(_as_data(result), indent=2, allow_nan=False) + "\n")
    if figures:
        from probvae.report.run_figures import draw_comparison

        draw_comparison(result, stage)


def _as_data(result: "Comparison") -> dict[str, Any]:
    from probvae.experiments.over_seeds import seed_groups

    return {**result.as_data(), "over_seeds": [group.as_data() for group in seed_groups(result)]}


def _print(result: "Comparison", out: Path) -> None:
    from probvae.cli.flags import in_flags
    from probvae.cli.output import print_line, print_table, warn

    base = result.entries[result.baseline]
    columns = ["run", "ELBO\nminus best", "log p(x)\nminus best", "gap\nappr.+am.", "used", "c", "s"]
    if base.elbo.mean() < max(entry.elbo.mean() for entry in result.entries):
        columns = [column.replace("minus best", "minus base") for column in columns]
    rows = [(label, *_cells(result, entry)) for label, entry in zip(result.labels, result.entries, strict=True)]
    print_table(f"{len(base.elbo)} held-out data, nats per datum", columns, rows, _caption(result), compact=True)
    _print_over_seeds(result)
    for text in _remarks(result):
        warn(text)
    for name, reason in result.failures.items():
        warn(f"{name} failed: {in_flags(reason)}")
    print_line(f"wrote {out / RESULT}")


def _print_over_seeds(result: "Comparison") -> None:
    """A row for each recipe that was fitted with several seeds; nothing where none was."""
    from probvae.cli.output import print_table
    from probvae.experiments.over_seeds import OverSeeds, SeedGroup, seed_groups

    def cell(number: OverSeeds | None, sign: str = "") -> str:
        return "-" if number is None else _with_error(number.value, number.standard_error, sign)

    def row(group: SeedGroup) -> tuple[str, ...]:
        values = [cell(group.means.get(name)) for name in ("elbo", "evidence", "gap")]
        changes = [cell(group.differences.get(name), "+") for name in ("elbo", "evidence")]
        return group.label, str(len(group.entries)), *map("\n".join, zip(values, [*changes, ""], strict=True))

    groups = seed_groups(result)
    if not groups:
        return
    caption = (
        "Means over the seeds. Their errors include the variance between seeds, and that of the data. Second lines: "
        "differences seed by seed."
    )
    columns = ["run", "seeds", "ELBO", "log p(x)", "gap"]
    print_table("over seeds, nats per datum", columns, [*map(row, groups)], caption, compact=True)


def _caption(result: "Comparison") -> str:
    chosen = result.labels[result.baseline]
    kinds = {entry.evidence.kind for entry in result.entries if entry.evidence is not None}
    parts = [
        f"Second lines: difference to {chosen}, paired datum by datum, with its standard error; approximation + "
        "amortisation. used: latents whose posterior mean varies."
    ]
    if any(entry.held_out != result.entries[result.baseline].held_out for entry in result.entries):
        parts.append("~ : on other held-out data, not paired.")
    parts += ["≥ : a lower bound."] * ("lower bound" in kinds) + ["≈ : an estimate."] * ("estimate" in kinds)
    return " ".join(parts)


def _remarks(result: "Comparison") -> Iterator[str]:
    base = result.entries[result.baseline]
    pairs = list(zip(result.labels, result.entries, strict=True))
    other = [label for label, entry in pairs if entry.held_out != base.held_out]
    if other:
        yield f"{'; '.join(other)}: other held-out data than the baseline's (another seed, or another share)."
    strange = [f"{label} ({entry.measure})" for label, entry in pairs if entry.measure != base.measure]
    if strange:
        yield (
            f"{'; '.join(strange)}: log p(x) is of another kind than the baseline's ({base.measure}); densities and "
            "probabilities cannot be compared."
        )


def _cells(result: "Comparison", entry: "Entry") -> tuple[str, ...]:
    summary, evidence = entry.summary, entry.mean_evidence()
    base = entry is result.entries[result.baseline]
    elbo = _with_error(summary["elbo"]["value"], summary["elbo"]["standard_error"])
    log_p = "-" if evidence is None else _with_error(evidence["value"], evidence["standard_error"])
    sign = {"lower bound": "≥ ", "estimate": "≈ "}.get(evidence["kind"] if evidence else "", "")
    differences = (
        ["baseline", ""] if base else [_difference(result.difference(entry, what)) for what in ("elbo", "evidence")]
    )
    c = "-" if summary["variance"] is None else f"{summary['variance']:.3g}"
    active = f"{summary['active_units']}/{summary['latent_dim']}"
    seconds = "-" if summary["seconds"] is None else f"{summary['seconds']:.1f}"
    return f"{elbo}\n{differences[0]}", f"{sign}{log_p}\n{differences[1]}", _gaps(summary["gap"]), active, c, seconds


def _gaps(gap: dict[str, Any]) -> str:
    if "not_computed" in gap:
        return "-"
    parts = [_short(gap[part]["value"]) for part in ("approximation", "amortisation") if part in gap]
    return "\n".join([_short(gap["total"]["value"]), *(["+".join(parts)] if parts else [])])


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.1g}"


def _with_error(value: float, error: float | None, sign: str = "") -> str:
    """The value, to two digits of its error, as far as a column of a narrow terminal holds them."""
    if error is None:
        return f"{value:{sign}.3f}"
    digits = 3 if error <= 0 else min(max(1 - math.floor(math.log10(error)), 2), 3)
    return f"{value:{sign}.{digits}f} ± {error:.{digits}f}"


def _difference(difference: "Difference | None") -> str:
    if difference is None:
        return "-"
    mark = "" if difference.paired else "~ "
    return mark + _with_error(difference.value, difference.standard_error, "+")
