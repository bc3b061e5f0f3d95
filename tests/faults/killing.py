"""Real fits on the command line, killed at random times and at every step of what writes their files.

Each is then resumed, and its weights, records and numbers compared with those of a fit that nobody disturbed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TIMES = ("seconds", "fit_seconds", "evaluation_seconds", "ledger_seconds")
# some hundred steps, with a smaller last minibatch and a validation set; saved after almost every step
FIT = (
    *("fit", "--hidden", "24", "--epochs", "40", "--patience", "30", "--kl-warmup", "3", "--batch-size", "50"),
    *("--checkpoint-seconds", "0.01", "--no-gap", "--no-figures", "--no-progress"),
)  # fmt: skip
FAULT_POINTS = (
    *(
        "run-filled",
        "file-opened",
        "file-written",
        "file-flushed",
        "file-renamed",
        "metrics-opened",
        "metrics-appended",
    ),
    "checkpoint-old",
)
_ATTEMPTS = 5
Trial = Callable[[], "Result"]


class Result(NamedTuple):
    """What became of one trial: "same", "different" or "lost", where the process ended, and the message."""

    outcome: str
    place: str
    message: str = ""


class Whole(NamedTuple):
    """An undisturbed run: what came out, and the seconds from its folder's appearance to its end."""

    content: dict[str, bytes]
    seconds: float


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "probvae", *map(str, arguments)]


def with_fault(environment: Mapping[str, str], fault: str) -> dict[str, str]:
    """The environment of a process that ends at a step of its writing; see ``inside/sitecustomize.py``."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent / "inside"), environment.get("PYTHONPATH")]))
    return {**environment, "PYTHONPATH": path, "PROBVAE_FAULT": fault}


def start(home: Path, arguments: Sequence[object], fault: str | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if fault is not None:
        environment = with_fault(environment, fault)
    return subprocess.Popen(
        command(*arguments), cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def content_of(run: Path) -> dict[str, bytes]:
    """What must not depend on how often a run was stopped; the times in the summary do."""
    summary = json.loads((run / "summary.json").read_text())
    timeless = {name: value for name, value in summary.items() if name not in (*TIMES, "run")}
    files = {name: (run / name).read_bytes() for name in ("model.safetensors", "metrics.jsonl", "config.toml")}
    return {**files, "summary.json": json.dumps(timeless).encode()}


def whole_run(home: Path) -> Whole:
    process = start(home, [*FIT, "--out", "whole"])
    _wait_for_folder(home / "whole", process)
    begin = time.monotonic()
    _, err = process.communicate()
    assert process.returncode == 0, err
    return Whole(content_of(home / "whole"), time.monotonic() - begin)


def _wait_for_folder(run: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not run.exists():
        time.sleep(0.002)


def ended(home: Path, whole: Whole, place: str) -> Result:
    """Go on with a run that was stopped, as its user would, and compare."""
    run = home / "run"
    for _ in range(_ATTEMPTS):
        again = ["fit", "--resume", "run", "--no-gap", "--no-figures", "--no-progress"]
        process = start(home, again if run.exists() else [*FIT, "--out", "run"])
        _, err = process.communicate(timeout=300)
        if process.returncode == 0:
            found = content_of(run)
            different = [name for name in whole.content if found[name] != whole.content[name]]
            left = [str(path.relative_to(home)) for path in home.rglob(".*") if path.name != ".lock" and path.is_file()]
            return Result("different" if different else "same", place, ", ".join(different + left))
    return Result("lost", place, err)


def killed_at(seconds: float, whole: Whole) -> Result:
    """A fit that is killed so long after its folder has appeared."""
    with _home() as home:
        process = start(home, [*FIT, "--out", "run"])
        _wait_for_folder(home / "run", process)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        checkpoints = sorted(path.name for path in (home / "run" / "checkpoints").glob("epoch*"))
        return ended(home, whole, f"{seconds:.2f} s, {checkpoints[-1] if checkpoints else 'no checkpoint'}")


def killed_in(fault: str, whole: Whole) -> Result:
    """A fit that ends, or whose disk is full, at a step of what writes its files."""
    with _home() as home:
        process = start(home, [*FIT, "--out", "run"], fault)
        _, err = process.communicate(timeout=300)
        expected = -signal.SIGKILL if fault.endswith("kill") else 2
        if process.returncode not in (expected, 0):
            return Result("lost", fault, f"exit code {process.returncode}: {err}")
        if expected == 2 and process.returncode and ("Traceback" in err or "No space left on device" not in err):
            return Result("lost", fault, err)
        return ended(home, whole, fault)


class _home(tempfile.TemporaryDirectory):
    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())


def trials(
    kills: int, whole: Whole, seed: int = 0, occurrences: Sequence[int] = (1, 2, 3, 5, 8, 13)
) -> Iterator[Trial]:
    """Kills at random times from the folder's appearance to the end, and every fault point at several of its visits."""
    generator = random.Random(seed)
    for _ in range(kills):
        yield partial(killed_at, generator.uniform(0, whole.seconds), whole)
    for point in FAULT_POINTS:
        for number in occurrences:
            for what in ("kill", "full"):
                yield partial(killed_in, f"{point}:{number}:{what}", whole)
