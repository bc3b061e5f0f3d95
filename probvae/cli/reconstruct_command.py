"""`probvae reconstruct`."""

from pathlib import Path

import click

from probvae.cli.run_options import data_option, load_data_for, memory_option, out_option, run_argument, target_folder


@click.command("reconstruct")
@run_argument
@data_option
@out_option
@memory_option
def command(run: Path, data: str | None, out: Path | None) -> None:
    """Decode the posterior mean of each datum: reconstructions.npz (x, reconstruction, squared_error) and a picture."""
    from probvae.cli.output import print_line
    from probvae.experiments.recipe import read_run_recipe
    from probvae.experiments.run import as_tensor, given
    from probvae.inference import reconstruct
    from probvae.inference.pair import load
    from probvae.report.run_figures import draw_reconstructions
    from probvae.storage.files import write_arrays

    vae = load(run)
    source = load_data_for(run, vae, data)
    x = as_tensor(source)
    vae = given(read_run_recipe(run), vae, source)
    reconstruction = reconstruct(vae, x)
    squared_error = (x - reconstruction).square().nanmean(1)
    folder = target_folder(run, out)
    content = {"x": x, "reconstruction": reconstruction, "squared_error": squared_error}
    arrays = write_arrays(folder / "reconstructions.npz", {name: value.numpy() for name, value in content.items()})
    picture = draw_reconstructions(source, reconstruction.numpy(), folder)
    print_line(f"wrote {arrays} (x, reconstruction, squared_error) and {picture}")
    print_line(f"mean squared error {squared_error.mean().item():.5f} over {len(x)} data")
