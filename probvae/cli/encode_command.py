"""`probvae encode`."""

from pathlib import Path

import click

from probvae.cli.run_options import memory_option, opened_run, out_option, run_argument, write_table


@click.command("encode")
@run_argument
@click.argument("data", required=False)
@out_option
@memory_option
def command(run: Path, data: str | None, out: Path | None) -> None:
    """Write the guide's mean and standard deviation for each datum: codes.npz (mean, scale, labels) and a picture.

    DATA is a named data set or a file; without it, the run's own data are taken.
    """
    from probvae.applications import encode
    from probvae.cli.output import print_line
    from probvae.report.run_figures import draw_latent_plane
    from probvae.storage.files import staged

    opened, folder = opened_run(run, data), out or run
    with staged(folder) as stage:
        codes = encode(opened.vae, opened.x, opened.data.labels)
        written = write_table(stage / "codes.npz", codes)
        picture = draw_latent_plane(codes.mean.numpy(), codes.labels, stage)
    print_line(f"wrote {folder / written} and {folder / picture.name}")
