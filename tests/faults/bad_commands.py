"""Command lines that are mistakes: options, values and paths of all kinds."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from probvae.cli.main import COMMANDS
from tests.faults.bad_arrays import X
from tests.faults.bad_recipes import setting

_OPTIONS = (
    "--data", "--data-dir", "--labels", "--num-data", "--scaling", "--binarization", "--exposure", "--condition",
    "--missing", "--prior", "--likelihood", "--variance", "--decoder", "--encoder", "--guide", "--objective",
    "--num-particles", "--beta", "--free-bits", "--latent-dim", "--hidden", "--epochs", "--batch-size",
    "--learning-rate", "--schedule", "--patience", "--kl-warmup", "--seed", "--compile", "--device", "--set", "--out",
    "--memory-limit", "--truth", "--draws", "-n", "--interval", "--given", "--sweep", "--baseline", "--nothing",
    "--allow-grey", "--json", "-x",
)  # fmt: skip
_VALUES = (
    "", " ", "0", "-1", "1", "2", "nan", "inf", "-inf", "1e400", "1e9", "1000000000", "9" * 30, "9" * 5000, "0x10",
    "1_0", "١", "a", "a,b", ",", ",,,", "1,2", "0,0", "-1,-2", "1000000000,1000000000", "learned", "none", "mask",
    "auto", "labels", "total", "digits", "cuda:99", "meta", "xpu", "--", "-", "--epochs", "..", ".", "/", "/dev/zero",
    "/dev/stdin", "/proc/self/mem", "~", "x" * 300, "x" * 100_000, "a/" * 3000, "\udcff\udcfe", "line\nbreak",
    "\x1b[31mred\x1b[0m", "tab\there", "\N{SNOWMAN}", "\N{RIGHT-TO-LEFT OVERRIDE}abc", "%s%n{0}", "[red]x[/red]",
    "[/]", "$HOME", "'\"", "512MB", "1GB", "0GB", "-1GB", "nanGB", "infGB", "1e300GB",
)  # fmt: skip
_PATHS = (
    "missing.npy", "missing.csv", "missing.toml", "folder", "folder.npy", "folder.toml", "pipe.npy", "pipe.csv",
    "pipe.toml", "endless.npy", "endless.csv", "endless.parquet", "endless.toml", "loop.npy", "dangling.npz",
    "secret.npy", "file/inside.npy", "x" * 300 + ".npy", "x" * 300 + ".toml", "a/" * 3000 + "x.npy", "good.npy",
    "good.npy/", "good.NPY", "good", "line\nbreak.npy", "\x1b[31mred.npy", "\udcff.npy", "\N{SNOWMAN}.npy",
    "-dash.npy", ".npy", "..", "/", "/dev/zero", "/dev/full", "/proc/self/mem", "/proc/self/environ",
    "https://example.org/x.npy", "~/x.npy", "*.npy",
)  # fmt: skip


def command_line(rng: Random, folder: Path, quick: list[str]) -> list[str]:
    """The arguments of a command that is a mistake in most cases; what it reads is made in ``folder``."""
    make: Callable[[Random, Path, list[str]], list[str]] = rng.choice(
        [_option, _option, _option, _setting, _setting, _path, _path, _path, _other_command, _anything]
    )
    arguments = make(rng, folder, quick)
    # to ask for a billion epochs is no mistake that can be known beforehand
    return [argument for argument in arguments if not _endless(argument)] if "epochs" in str(arguments) else arguments


def _endless(argument: str) -> bool:
    return any(number in argument for number in ("000000", "1e9", "9223372036854775807", "0x7fffffff"))


def _option(rng: Random, folder: Path, quick: list[str]) -> list[str]:
    _good(folder)
    options = [part for _ in range(rng.choice([1, 1, 2])) for part in _pair(rng)]
    return ["fit", "--data", "good.npy", *quick, *options]


def _setting(rng: Random, folder: Path, quick: list[str]) -> list[str]:
    _good(folder)
    settings = [part for _ in range(rng.choice([1, 1, 2])) for part in ("--set", setting(rng))]
    return ["fit", "--data", "good.npy", *quick, *settings]


def _path(rng: Random, folder: Path, quick: list[str]) -> list[str]:
    """A strange path in the place of data, recipe, run or target."""
    _good(folder)
    path = _made(rng.choice(_PATHS), folder)
    return rng.choice(
        [
            ["fit", "--data", path, *quick],
            ["fit", "--data", path, *quick],
            ["fit", path, "--data", "good.npy", *quick],
            ["fit", "--data", "good.npy", *quick, "--out", path],
            ["encode", path],
            ["sample", path],
            ["gap", path],
            ["report", path],
            ["compare", path, path],
            ["diagnose-program", path],
            ["diagnose-program", f"{path}:make"],
        ]
    )


def _other_command(rng: Random, folder: Path, quick: list[str]) -> list[str]:
    """Without what it needs, or none at all."""
    options = [part for _ in range(rng.choice([0, 1, 2])) for part in _pair(rng)]
    name = rng.choice([*COMMANDS, "nothing", "", "\udcff", "fi"])
    return [name, *(quick if name in ("fit", "compare") else []), *options]


def _anything(rng: Random, folder: Path, quick: list[str]) -> list[str]:
    _good(folder)
    words = rng.choices([*_OPTIONS, *_VALUES, *COMMANDS], k=rng.choice([1, 2, 3, 6]))
    # a fit of the default recipe is no mistake, but it takes its time
    return words if words[0] != "fit" and rng.random() < 0.5 else ["fit", "--data", "good.npy", *quick, *words]


def _pair(rng: Random) -> list[str]:
    value = rng.choice(_VALUES)
    return rng.choice([[rng.choice(_OPTIONS), value], [f"{rng.choice(_OPTIONS)}={value}"]])


def _good(folder: Path) -> None:
    np.save(folder / "good.npy", X)


def _made(name: str, folder: Path) -> str:
    """``name``, with what it says made in ``folder`` as far as that can be."""
    path = folder / name
    stem = name.split(".")[0]
    if stem == "folder":
        path.mkdir()
    elif stem == "pipe":
        os.mkfifo(path)
    elif stem == "endless":
        path.symlink_to("/dev/zero")
    elif stem in ("loop", "dangling"):
        path.symlink_to(path if stem == "loop" else folder / "nowhere")
    elif stem == "secret":
        np.save(path, X)
        path.chmod(0)
    elif name.startswith("file/"):
        path.parent.write_text("")
    elif name in (
        "good.NPY",
        "line\nbreak.npy",
        "\x1b[31mred.npy",
        "\udcff.npy",
        "\N{SNOWMAN}.npy",
        "-dash.npy",
        ".npy",
    ):
        path.write_bytes((folder / "good.npy").read_bytes())
    return name
