"""`probvae compare`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from probvae import recipes

if TYPE_CHECKING:
    from probvae.comparison import Comparison, Difference, Entry


@click.command("compare")
@click.argument("arguments", metavar="RUN... | [RECIPE.toml ...] [NAME=VALUE,...]", nargs=-1)
@click.option("--sweep", metavar="NAME=VALUE,...", multiple=True, help="Fit all combinations, e.g. prior=vamp,mixture.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any key of the recipe, for all fits.")
@click.option("--baseline", metavar="NAME", help="The run that the others are compared with [default: the best ELBO].")
@click.option("--out", type=click.Path(path_type=Path), default=Path("comparison"), show_default=True, help="Folder.")
@click.option("--figures/--no-figures", default=True, help="Draw the pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print compare.json instead of the tables.")
def command(
    arguments: tuple[str, ...],
    sweep: tuple[str, ...],
    settings: tuple[str, ...],
    baseline: str | None,
    out: Path,
    figures: bool,
    as_json: bool,
) -> None:
    """Compare runs on the same held-out data, with paired differences and their standard errors.

    Give finished runs, or `--sweep prior=standard-normal,mixture guide=diagonal,flow variance=0.1,learned` to fit all
    combinations into folders below --out (what is there already is not fitted again). Writes compare.json and pictures.
    """
    from probvae.cli.output import shown_warnings
    from probvae.comparison import compare

    with shown_warnings():
        if sweep:
            axes = [*sweep, *(text for text in arguments if "=" in text)]
            files = [text for text in arguments if "=" not in text]
            entries, failures = _fit(files, axes, settings, out)
        else:
            entries, failures = _read(arguments, settings)
        result = compare(entries, baseline, failures)
    _write(result, out, figures)
    if as_json:
        click.echo(json.dumps(result.as_data()))
    else:
        _print(result, out)


def _read(arguments: tuple[str, ...], settings: tuple[str, ...]) -> tuple[list["Entry"], dict[str, str]]:
    from probvae.comparison import read_entry

    if settings or any("=" in text for text in arguments):
        raise click.UsageError("settings are for fits: give --sweep NAME=VALUE,... with them.")
    if not arguments:
        raise click.UsageError("give run folders, or --sweep NAME=VALUE,... to fit some.")
    with _progress() as advance:
        entries = []
        for number, run in enumerate(arguments, start=1):
            advance(run, number, len(arguments))
            entries.append(read_entry(Path(run)))
    return entries, {}


def _fit(
    files: list[str], axes: list[str], settings: tuple[str, ...], out: Path
) -> tuple[list["Entry"], dict[str, str]]:
    from probvae.cli.fit_command import KEYS, recipe_of
    from probvae.comparison import parse_sweep, run_sweep

    recipe = recipes.resolve(
        [*(recipes.read_recipe(Path(file)) for file in files), *map(recipes.parse_setting, settings)]
    )
    with _progress() as advance:
        return run_sweep(recipe, parse_sweep(axes, KEYS), out, recipe_of, advance)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the runs, on stderr; lines where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        yield lambda name, number, total: console.print(f"{number}/{total} {name}", highlight=False)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("")
        yield lambda name, number, total: bar.update(task, completed=number - 1, total=total, description=name)


def _write(result: "Comparison", out: Path, figures: bool) -> None:
    from probvae._files import write_text
    from probvae.cli.run_options import target_folder

    folder = target_folder(out, None)
    write_text(folder / "compare.json", json.dumps(result.as_data(), indent=2) + "\n")
    if figures:
        from probvae.report.run_figures import draw_comparison

        draw_comparison(result, folder)


def _print(result: "Comparison", out: Path) -> None:
    from probvae.cli.output import print_line, print_table, warn

    base = result.entries[result.baseline]
    rows = [(entry.name, *_numbers(entry)) for entry in result.entries]
    columns = ["run", "ELBO", "log p(x)", "gap", "approx.", "amort.", "active", "c", "seconds"]
    count = f"{len(base.elbo)} held-out data; nats per datum; gap = approximation + amortisation"
    print_table("runs", columns, rows, count)
    others = [entry for entry in result.entries if entry is not base]
    if others:
        table = [(e.name, *(_difference(result.difference(e, what)) for what in ("elbo", "evidence"))) for e in others]
        caption = "mean ± standard error of the paired difference, and how many standard errors it is"
        print_table(f"difference to {base.name}", ["run", "ELBO", "log p(x)"], table, caption)
    if any(entry.fingerprint != base.fingerprint for entry in result.entries):
        warn(f"runs with other held-out data than {base.name} cannot be paired; their differences are left out.")
    for name, reason in result.failures.items():
        warn(f"{name} failed: {reason}")
    print_line(f"wrote {out / 'compare.json'}")


def _numbers(entry: "Entry") -> tuple[str, ...]:
    summary, gap = entry.summary, entry.summary["gap"]
    parts = ("total", "approximation", "amortisation")
    gaps = ["-"] * 3 if "not_computed" in gap else [f"{gap[part]['value']:.3f}" for part in parts]
    evidence = "-" if entry.evidence is None else f"{float(entry.evidence.double().mean()):.3f}"
    bound_sign = {"lower bound": ">= ", "estimate": "~ "}.get(gap.get("kind", ""), "")
    c = "-" if summary["variance"] is None else f"{summary['variance']:.4g}"
    elbo = f"{summary['elbo']['value']:.3f} ± {summary['elbo']['standard_error']:.3f}"
    active = f"{summary['active_units']}/{summary['latent_dim']}"
    return elbo, bound_sign + evidence, *gaps, active, c, f"{summary['seconds']:.0f}"


def _difference(difference: "Difference | None") -> str:
    if difference is None:
        return "-"
    sigmas = abs(difference.value) / difference.standard_error if difference.standard_error else float("inf")
    return f"{difference.value:+.4f} ± {difference.standard_error:.4f} ({sigmas:.1f})"
