"""`probvae impute`."""

from pathlib import Path

import click

from probvae.cli.run_options import (
    data_option,
    memory_option,
    opened_run,
    out_option,
    run_argument,
    seed_option,
    write_table,
)


@click.command("impute")
@run_argument
@data_option
@click.option("-n", "--num-draws", type=click.IntRange(min=1), default=100, show_default=True, help="Draws an entry.")
@click.option("--interval", type=float, default=0.9, show_default=True, help="The probability of the interval.")
@seed_option
@out_option
@memory_option
def command(run: Path, data: str | None, num_draws: int, interval: float, seed: int, out: Path | None) -> None:
    """Fill the missing entries: imputed.npz (mean, point, lower, upper, draws, missing, ess).

    RUN was fitted with --missing mask. Observed entries stay as they are; all numbers are in the units of the data.
    mean is E[x|observed], of the code where a column has categories; point is a possible value: the most frequent
    category, or the median.
    """
    from probvae.applications import fill_missing
    from probvae.applications.missing_entries import filled_in_user_units
    from probvae.cli.output import print_line
    from probvae.storage.files import staged

    opened, folder = opened_run(run, data), out or run
    with staged(folder) as stage:
        filled = fill_missing(opened.vae, opened.x, num_draws, interval=interval, seed=seed)
        written = write_table(stage / "imputed.npz", filled_in_user_units(opened, filled))
    print_line(f"wrote {folder / written}")
    num_entries = opened.x.numel()
    print_line(f"{filled.num_missing} of {num_entries} entries imputed; smallest ess {float(filled.ess.min()):.0f}")
