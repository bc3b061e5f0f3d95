"""`probvae encode`."""

from pathlib import Path

import click

from probvae.cli.run_options import load_data_for, memory_option, out_option, run_argument, target_folder


@click.command("encode")
@run_argument
@click.argument("data", required=False)
@out_option
@memory_option
def command(run: Path, data: str | None, out: Path | None) -> None:
    """Write the guide's mean and standard deviation for each datum: codes.npz (mean, scale, labels) and a picture.

    DATA is a named data set or a file; without it, the run's own data are taken.
    """
    from probvae.cli.output import print_line
    from probvae.experiments.recipe import read_run_recipe
    from probvae.experiments.run import as_tensor, given
    from probvae.inference import posterior_mean, posterior_scale
    from probvae.inference.pair import load
    from probvae.report.run_figures import draw_latent_plane
    from probvae.storage.files import write_arrays

    vae = load(run)
    source = load_data_for(run, vae, data)
    x = as_tensor(source)
    vae = given(read_run_recipe(run), vae, source)
    codes = {"mean": posterior_mean(vae, x).numpy(), "scale": posterior_scale(vae, x).numpy()}
    labels = {} if source.labels is None else {"labels": source.labels}
    folder = target_folder(run, out)
    arrays = write_arrays(folder / "codes.npz", {**codes, **labels})
    picture = draw_latent_plane(codes["mean"], source.labels, folder)
    print_line(f"wrote {arrays} ({', '.join([*codes, *labels])}) and {picture}")
