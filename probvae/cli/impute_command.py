"""`probvae impute`."""

from pathlib import Path

import click

from probvae.cli.run_options import (
    data_option,
    load_data_for,
    memory_option,
    out_option,
    run_argument,
    seed_option,
    target_folder,
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
    """Fill the missing entries: imputed.npz (mean, lower, upper, draws, missing, ess).

    RUN was fitted with --missing mask. Observed entries stay as they are; all numbers are in the units that the run was
    fitted in (after its scaling).
    """
    from probvae.cli.output import print_line
    from probvae.experiments.recipe import read_run_recipe
    from probvae.experiments.run import as_tensor, given
    from probvae.inference import impute
    from probvae.inference.pair import load
    from probvae.storage.files import write_arrays

    vae = load(run)
    source = load_data_for(run, vae, data)
    x = as_tensor(source)
    result = impute(given(read_run_recipe(run), vae, source), x, num_draws, interval=interval, seed=seed)
    content = {**result._asdict(), "missing": x.isnan()}
    folder = target_folder(run, out)
    arrays = write_arrays(folder / "imputed.npz", {name: value.numpy() for name, value in content.items()})
    print_line(f"wrote {arrays} ({', '.join(content)})")
    print_line(f"{int(x.isnan().sum())} of {x.numel()} entries imputed; smallest ess {float(result.ess.min()):.0f}")
