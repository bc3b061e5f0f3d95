"""`probvae gap`."""

import json
from pathlib import Path

import click

from probvae.cli.run_options import (
    data_option,
    memory_option,
    opened_run,
    out_option,
    run_argument,
    seed_option,
    truth_option,
)
from probvae.errors import ArgumentError


@click.command("gap")
@run_argument
@data_option
@click.option("--num-data", type=click.IntRange(min=1), help="How many data [default: 500, or 50 with annealing].")
@truth_option
@seed_option
@out_option
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as one JSON object instead of the table.")
@memory_option
def command(
    run: Path, data: str | None, num_data: int | None, truth: str, seed: int, out: Path | None, as_json: bool
) -> None:
    """Say how wrong the posterior of RUN is: total = approximation + amortisation, in nats per datum.

    Where the guide's family cannot be searched, the total alone and the reason.

    The held-out data of the run are taken unless --data names others. Writes gap.json, and for two latent
    dimensions a picture of exact posteriors with the guide on top.
    """
    from probvae.cli.output import print_gap, print_line
    from probvae.experiments.recipe_data import binarized
    from probvae.experiments.summary import ledger_of
    from probvae.inference.evidence.log_evidence import MAX_QUADRATURE_DIM
    from probvae.report.run_figures import draw_posteriors
    from probvae.storage.files import staged, write_text

    opened, folder = opened_run(run, data, held_out=data is None), out or run
    with staged(folder) as stage:
        result, summary = ledger_of(opened.vae, opened.data, seed, truth, num_data)
        if result is None:
            raise ArgumentError(summary["not_computed"])
        write_text(stage / "gap.json", json.dumps(summary, indent=2) + "\n")
        picture = draw_posteriors(opened.vae, binarized(opened.data, seed), result, stage)
    if as_json:
        click.echo(json.dumps(summary))
        return
    print_gap(summary)
    print_line(f"wrote {folder / 'gap.json'}" + (f" and {folder / picture.name}" if picture else ""))
    if picture is None and opened.vae.model.latent_dim <= MAX_QUADRATURE_DIM:
        print_line("no picture of the posteriors: no grid of moderate size covers them")
