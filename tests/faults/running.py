"""One case: a bad input, the command line on it in this process, and what came of that."""

import contextlib
import io
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from probvae.cli import main
from tests.faults import bad_arrays, bad_recipes, bad_runs, bad_tables
from tests.faults.bad_commands import command_line
from tests.support.memory import peak, reset_peak

SECONDS, MEMORY = 10, 2 * 2**30
# How many processes may have the core that a case has, before it counts as a hang
_SHARED = 6
# a fit that has nothing to complain of is over at once
QUICK = [
    "--epochs",
    "1",
    "--batch-size",
    "8",
    "--hidden",
    "8",
    "--no-gap",
    "--no-figures",
    "--no-progress",
    "--out",
    "run",
]
_SHORTEST, _LONGEST = 20, 1500
_KINDS_OF_SIGN = (unicodedata.category, unicodedata.bidirectional)
_SPEAKERS, _LAYOUT = ("probvae: ", "Error: "), str.maketrans("", "", "\n\t")
# control characters, halves of characters, separators of lines; what turns the writing's direction
_OBEYED = {"Cc", "Cs", "Zl", "Zp", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
# What a case can come to. The first three are right.
MESSAGE, NOT_BAD, FAILED_FIT = "message", "not bad", "failed fit"
TRACEBACK, HANG, LEFT_BEHIND, TOO_MUCH_MEMORY, UNCLEAR = "traceback", "hang", "left behind", "memory", "unclear message"
RIGHT = (MESSAGE, NOT_BAD, FAILED_FIT)


@dataclass(frozen=True)
class Outcome:
    """What a case came to, how long it took (seconds), and how much memory at its peak (bytes beyond the start)."""

    verdict: str
    detail: str
    seconds: float
    memory: int
    arguments: list[str]


class Hang(BaseException):
    """The alarm has rung; no ``except Exception`` may swallow it."""


def _file(name: str, make: Callable[[Random], bytes]) -> Callable[[Random, Path], list[str]]:
    def case(rng: Random, folder: Path) -> list[str]:
        (folder / name).write_bytes(make(rng))
        more = ["--labels", rng.choice(["a", "labels", "x", "text"])] if rng.random() < 0.1 else []
        return ["fit", "--data", name, *QUICK, *more]

    return case


def _recipe(rng: Random, folder: Path) -> list[str]:
    import numpy as np

    (folder / "recipe.toml").write_bytes(bad_recipes.toml(rng))
    np.save(folder / "good.npy", bad_arrays.X)
    return ["fit", "recipe.toml", "--data", "good.npy", *_without(QUICK, "--hidden")]


def _without(options: list[str], name: str) -> list[str]:
    place = options.index(name)
    return options[:place] + options[place + 2 :]


# kind of input -> what makes it in a folder, and gives the command line that reads it
KINDS: dict[str, Callable[[Random, Path], list[str]]] = {
    "npy": _file("data.npy", bad_arrays.npy),
    "npz": _file("data.npz", bad_arrays.npz),
    "csv": _file("data.csv", bad_tables.csv),
    "parquet": _file("data.parquet", bad_tables.parquet),
    "toml": _recipe,
    "command": lambda rng, folder: command_line(rng, folder, QUICK),
    "run": bad_runs.run,
}


def prepare(kind: str, seed: int, folder: Path) -> list[str]:
    """Make the input of one case in the empty ``folder``, and give the command line that reads it."""
    return KINDS[kind](Random(f"{kind} {seed}"), folder)


def run_case(kind: str, seed: int) -> Outcome:
    """The case in a folder of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="case-") as home:
        folder, temporary = Path(home, "work"), Path(home, "tmp")
        folder.mkdir()
        temporary.mkdir()
        arguments = prepare(kind, seed, folder)
        with _inside(folder, temporary):
            return _judged(arguments, folder, temporary)


def _judged(arguments: list[str], folder: Path, temporary: Path) -> Outcome:
    before, start, floor = contents(folder), time.perf_counter(), reset_peak()
    code, message = call(arguments)
    seconds, memory = time.perf_counter() - start, peak() - floor
    left = [*(contents(folder) - before), *contents(temporary)]
    verdict, detail = verdict_on(code, message, left, folder)
    if memory > MEMORY:
        verdict, detail = TOO_MUCH_MEMORY, f"{memory / 2**20:.0f} MB; {verdict}: {detail}"
    return Outcome(verdict, detail, seconds, memory, arguments)


def call(arguments: list[str]) -> tuple[int | None, str]:
    """The exit code and what was written to stderr; None with the traceback, where it came to that."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["probvae", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _patience():
            main()
    except SystemExit as stop:
        return int(stop.code or 0), err.getvalue()
    except BaseException:
        return None, traceback.format_exc()
    finally:
        sys.argv = argv
    return 0, err.getvalue()


def verdict_on(code: int | None, message: str, left: list[str], folder: Path) -> tuple[str, str]:
    """What an exit code (None: an exception), the text on stderr and the new files amount to, and the reason."""
    if "tests.faults.running.Hang" in message:
        return HANG, message[-1500:]
    if code is None or code not in (0, 1, 2) or "Traceback" in message:
        return TRACEBACK, message[-3000:]
    if code == 0:
        whole = "run" not in left or (folder / "run" / "summary.json").is_file()
        return (NOT_BAD, "") if whole else (LEFT_BEHIND, str(left))
    if code == 1:
        return FAILED_FIT, message
    if left:
        return LEFT_BEHIND, f"{sorted(left)[:10]}; {message[-1000:]}"
    return (MESSAGE, message) if _is_clear(message) else (UNCLEAR, message[:3000])


def _is_clear(message: str) -> bool:
    """One line says who speaks and what is wrong; short enough to be read, and nothing a terminal would obey."""
    says = [len(line) for line in message.splitlines() if line.startswith(_SPEAKERS)]
    kinds = {kind(sign) for kind in _KINDS_OF_SIGN for sign in message.translate(_LAYOUT)}
    return bool(says) and min(says) >= _SHORTEST and max(says) <= _LONGEST and not kinds & _OBEYED


def contents(folder: Path) -> set[str]:
    """The names of all that is in ``folder``, at any depth; torch's compiler, once imported, makes one of its own."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return {name for name in names if not name.startswith("torchinductor_")}


@contextlib.contextmanager
def _inside(folder: Path, temporary: Path) -> Iterator[None]:
    """With ``folder`` as the current one, and temporary files where they can be counted."""
    before, tempfile.tempdir = tempfile.tempdir, str(temporary)
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """What a case computes is measured by the processor, which others may have; what it waits for, by the clock."""
    with alarm(SECONDS, of_processor=True), alarm(_SHARED * SECONDS):
        yield


@contextlib.contextmanager
def alarm(seconds: float, of_processor: bool = False) -> Iterator[None]:
    """Raise Hang after ``seconds`` of the clock, or of the processor's time that this process takes."""
    timer, sign = (signal.ITIMER_PROF, signal.SIGPROF) if of_processor else (signal.ITIMER_REAL, signal.SIGALRM)

    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(sign, ring)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(sign, before)
