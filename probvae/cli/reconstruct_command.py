"""`probvae reconstruct`."""

from pathlib import Path

import click

from probvae.cli.run_options import (
    data_option,
    memory_option,
    opened_run,
    out_option,
    run_argument,
    write_table,
)


@click.command("reconstruct")
@run_argument
@data_option
@out_option
@memory_option
def command(run: Path, data: str | None, out: Path | None) -> None:
    """Decode the posterior mean of each datum: reconstructions.npz (x, reconstruction, squared_error) and a picture.

    x and reconstruction are in the units of the data. The squared error is in those of the model, which is fitted to
    scaled columns: otherwise the column with the largest unit would be all of it.
    """
    from probvae.applications import reconstruct_and_compare
    from probvae.applications.fitted_run import in_user_units
    from probvae.cli.output import print_line, squared_unit
    from probvae.report.run_figures import draw_reconstructions
    from probvae.storage.files import staged

    opened, folder = opened_run(run, data), out or run
    with staged(folder) as stage:
        found = reconstruct_and_compare(opened.vae, opened.x)
        shown = found._replace(x=opened.original(), reconstruction=in_user_units(opened.data, found.reconstruction))
        written = write_table(stage / "reconstructions.npz", shown)
        picture = draw_reconstructions(opened.data, found.reconstruction.numpy(), stage)
    print_line(f"wrote {folder / written} and {folder / picture.name}")
    unit = squared_unit(opened.data.scaling)
    print_line(f"mean squared error {found.squared_error.mean().item():.5f} over {len(found.x)} data, in {unit}")
