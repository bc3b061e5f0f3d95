"""`probvae report`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from probvae.cli.run_options import (
    data_option,
    load_data_for,
    memory_option,
    out_option,
    run_argument,
    seed_option,
    truth_option,
)

if TYPE_CHECKING:
    from probvae.report.build_report import Report


@click.command("report")
@run_argument
@data_option
@click.option("--num-data", type=click.IntRange(min=1), help="How many data [default: 500 at most, 200 with --quick].")
@click.option("--draws", type=click.IntRange(min=100), help="Draws a datum [default: 1000, or 200 with --quick].")
@truth_option
@click.option("--quick", is_flag=True, help="Fewer data, simulations and draws: seconds, with larger errors.")
@seed_option
@out_option
@click.option("--progress/--no-progress", default=True, help="A bar over the sections, on a terminal.")
@memory_option
def command(
    run: Path,
    data: str | None,
    num_data: int | None,
    draws: int | None,
    truth: str,
    quick: bool,
    seed: int,
    out: Path | None,
    progress: bool,
) -> None:
    """Say whether the posterior of RUN can be trusted: report.html, report.json, posterior.nc and figures.

    The held-out data of the run are taken unless --data names others. The exit code is 0 whatever the verdicts are.
    """
    from probvae.cli.output import section_progress, shown_warnings
    from probvae.inference.pair import load
    from probvae.report.build_report import Options
    from probvae.report.run_report import report_run

    vae = load(run)
    source = load_data_for(run, vae, data)
    options = Options(num_data, draws, truth, quick, seed)
    typed = shlex.join(["probvae", *sys.argv[1:]])
    with shown_warnings(), section_progress(progress) as advance:
        report = report_run(
            run, vae, source, options, out or run, held_out=data is None, command=typed, progress=advance
        )
    _print(report)


def _print(report: "Report") -> None:
    from probvae.cli.output import print_diagnosis, print_line

    print_diagnosis(report.diagnosis, report.subject)
    print_line(
        f"wrote {', '.join(str(file) for file in report.files)} and {report.num_figures} figures in "
        f"{report.folder / 'figures'}"
    )
