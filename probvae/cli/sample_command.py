"""`probvae sample`."""

from pathlib import Path

import click

from probvae.cli.run_options import (
    covariates_from_text,
    load_data_for,
    out_option,
    run_argument,
    seed_option,
    write_table,
)


@click.command("sample")
@run_argument
@click.option("-n", "--num-samples", type=int, default=64, show_default=True, help="How many.")
@click.option("--given", metavar="Y,...", help="For a conditional model: one label, or its covariates.")
@seed_option
@out_option
def command(run: Path, num_samples: int, given: str | None, seed: int, out: Path | None) -> None:
    """Draw new data from the model of RUN: samples.npz (z, mean, x) and a picture, in the units of the data."""
    from probvae.applications import sample
    from probvae.applications.fitted_run import in_user_units
    from probvae.cli.output import print_line
    from probvae.inference.pair import load
    from probvae.report.run_figures import draw_samples
    from probvae.storage.files import staged

    vae = load(run)
    if given is None and vae.model.covariates is not None:
        raise click.UsageError(f"{run} is a conditional model: say what its data are conditional on with --given.")
    if given is not None:
        vae = vae.given(covariates_from_text(vae, given))
    data = load_data_for(run, vae, None)
    folder = out or run
    with staged(folder) as stage:
        drawn = sample(vae, num_samples, seed)
        mean, x = (in_user_units(data, values) for values in (drawn.mean, drawn.x))
        written = write_table(stage / "samples.npz", drawn._replace(mean=mean, x=x))
        picture = draw_samples(drawn, data, stage, vae.model.likelihood.point_name)
    print_line(f"wrote {folder / written} and {folder / picture.name}")
