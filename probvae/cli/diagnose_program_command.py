"""`probvae diagnose-program`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probvae.cli.run_options import memory_option, seed_option
from probvae.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from probvae.inference.programs.program_file import ProgramFile


@click.command("diagnose-program")
@click.argument("program", metavar="FILE.py:NAME")
@click.argument("data", metavar="[DATA]", required=False)
@click.option("--scaling", metavar="NAME", help="Scaling of DATA: none, unit or standardize.")
@click.option("--binarization", metavar="NAME", help="Binarization of DATA: none, fixed or threshold.")
@click.option("--num-data", type=click.IntRange(min=1), help="Use the first so many data only.")
@click.option(
    "--truth",
    type=click.Choice(["auto", "quadrature", "annealed", "importance"]),
    default="auto",
    show_default=True,
    help="Where log p(x) comes from.",
)
@click.option("--quick", is_flag=True, help="Fewer draws and simulated data, for a first look.")
@seed_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder for diagnosis.json [default: this one].")
@click.option("--progress/--no-progress", default=True, help="A bar over the sections, on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as one JSON object instead of the table.")
@memory_option
def command(
    program: str,
    data: str | None,
    num_data: int | None,
    truth: str,
    quick: bool,
    seed: int,
    out: Path | None,
    progress: bool,
    as_json: bool,
    **preparation: str | None,
) -> None:
    """Diagnose the posterior of a Pyro model and guide that you wrote yourself.

    NAME in FILE.py is a function without arguments that returns (model, guide) or (model, guide, x), or an object with
    these attributes; the file is run. DATA, a named data set or a file, takes the place of x: rows of numbers.

    Both programs take x: one plate over its rows with all sites in it, the same latent sites in both. Writes
    diagnosis.json.
    """
    from probvae.cli.output import print_diagnosis, print_line, section_progress, shown_warnings
    from probvae.diagnostics.diagnose import diagnose
    from probvae.diagnostics.program_diagnosis import program_vae
    from probvae.inference.programs.program_file import read_programs
    from probvae.report.tables import as_json as plain
    from probvae.storage.files import staged, write_text

    folder = out or Path()
    with shown_warnings():
        programs = read_programs(program)
        x = _data(programs, program, data, preparation)[:num_data]
        with staged(folder) as stage, section_progress(progress) as advance:
            vae = program_vae(programs.model, programs.guide, x)
            diagnosis = diagnose(vae, x.flatten(1), truth=truth, quick=quick, seed=seed, progress=advance)
            names: Any = vae.model.latent_names
            found = {"program": program, "latents": names, **diagnosis.summary()}
            content = json.dumps(plain(found), allow_nan=False, indent=None if as_json else 2)
            write_text(stage / "diagnosis.json", content + "\n")
    if as_json:
        click.echo(content)
        return
    print_diagnosis(diagnosis, f"{program} on {len(x)} data{f' of {data}' if data else ''}")
    print_line(", ".join(f"z_{number} is {name}" for number, name in enumerate(names, start=1)))
    print_line(f"wrote {folder / 'diagnosis.json'}")


def _data(programs: "ProgramFile", program: str, data: str | None, preparation: dict[str, str | None]) -> "Tensor":
    """The rows (N, ...) of the data set or file ``data``, or those that the program itself has."""
    options: dict[str, Any] = {name: value for name, value in preparation.items() if value is not None}
    if data is not None:
        from probvae.data import load_data
        from probvae.experiments.recipe_data import as_tensor

        return as_tensor(load_data(data, **options))
    if options:
        raise ConfigError(
            f"{', '.join(options)}: these prepare DATA, and none was named. Give DATA, or prepare x yourself."
        )
    if programs.x is None:
        raise ConfigError(
            f"data: {program} gives no x. Return (model, guide, x), or name the data: "
            f"probvae diagnose-program {program} DATA"
        )
    return programs.x
