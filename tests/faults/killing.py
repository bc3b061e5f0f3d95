"""Real fits on the command line, killed at random times and at every step of what writes their files.

    python -m tests.faults.killing [--kills 100] [--workers 2]

Each is then resumed, and its weights, records and numbers compared with those of a fit that nobody disturbed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from probvae._tensor_files import digest, read_tensors

ROOT = Path(__file__).parents[2]
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


class Result(NamedTuple):
    """What became of one trial: "same", "different" or "lost", where the process ended, and the message."""

    outcome: str
    place: str
    message: str = ""


class Whole(NamedTuple):
    """An undisturbed run: its bytes, and when its folder appeared and when it ended, in seconds."""

    content: dict[str, bytes]
    began: float
    ended: float


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "probvae", *map(str, arguments)]


def start(home: Path, arguments: Sequence[object], fault: str | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if fault is not None:
        environment["PROBVAE_FAULT"] = fault
    return subprocess.Popen(
        command(*arguments), cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def content_of(run: Path) -> dict[str, bytes]:
    """What must not depend on how often a run was stopped; the times in the summary do."""
    summary = json.loads((run / "summary.json").read_text())
    timeless = {name: value for name, value in summary.items() if name not in ("seconds", "fit_seconds", "run")}
    files = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "config.toml")}
    # safetensors writes its metadata in any order: the bytes of the file itself differ between two equal ones
    weights = digest(*read_tensors(run / "model.safetensors"))
    return {**files, "model.safetensors": weights.encode(), "summary.json": json.dumps(timeless).encode()}


def whole_run(home: Path, options: Sequence[object] = ()) -> Whole:
    begin, process = time.monotonic(), start(home, [*FIT, *options, "--out", "whole"])
    while process.poll() is None and not (home / "whole").exists():
        time.sleep(0.01)
    began = time.monotonic() - begin
    _, err = process.communicate()
    assert process.returncode == 0, err
    return Whole(content_of(home / "whole"), began, time.monotonic() - begin)


def ended(home: Path, whole: Whole, place: str, options: Sequence[object] = ()) -> Result:
    """Go on with a run that was stopped, as its user would, and compare."""
    run = home / "run"
    for _ in range(_ATTEMPTS):
        again = ["fit", "--resume", "run", "--no-gap", "--no-figures", "--no-progress"]
        process = start(home, again if run.exists() else [*FIT, *options, "--out", "run"])
        _, err = process.communicate(timeout=300)
        if process.returncode == 0:
            found = content_of(run)
            different = [name for name in whole.content if found[name] != whole.content[name]]
            left = [str(path.relative_to(home)) for path in home.rglob(".*") if path.name != ".lock" and path.is_file()]
            return Result("different" if different else "same", place, ", ".join(different + left))
    return Result("lost", place, err)


def killed_at(seconds: float, whole: Whole, options: Sequence[object] = ()) -> Result:
    """A fit that is killed at this time after its start."""
    with _home() as home:
        process = start(home, [*FIT, *options, "--out", "run"])
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        checkpoints = sorted(path.name for path in (home / "run" / "checkpoints").glob("epoch*"))
        place = checkpoints[-1] if checkpoints else "run" if (home / "run").exists() else "nothing"
        return ended(home, whole, f"{seconds:.2f} s: {place}", options)


def killed_in(fault: str, whole: Whole, options: Sequence[object] = ()) -> Result:
    """A fit that ends, or whose disk is full, at a step of what writes its files."""
    with _home() as home:
        process = start(home, [*FIT, *options, "--out", "run"], fault)
        _, err = process.communicate(timeout=300)
        expected = -signal.SIGKILL if fault.endswith("kill") else 2
        if process.returncode not in (expected, 0):
            return Result("lost", fault, f"exit code {process.returncode}: {err}")
        if expected == 2 and process.returncode and ("Traceback" in err or "No space left on device" not in err):
            return Result("lost", fault, err)
        return ended(home, whole, fault, options)


class _home(tempfile.TemporaryDirectory):
    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())


def trials(
    kills: int, whole: Whole, seed: int = 0, occurrences: Sequence[int] = (1, 2, 3, 5, 8, 13)
) -> Iterator[tuple]:
    """Kills at random times from the folder's appearance to the end, and every fault point at several of its visits."""
    generator = random.Random(seed)
    for _ in range(kills):
        yield killed_at, generator.uniform(0.8 * whole.began, whole.ended)
    for point in FAULT_POINTS:
        for number in occurrences:
            for what in ("kill", "full"):
                yield killed_in, f"{point}:{number}:{what}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with _home() as home:
        whole = whole_run(home)
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(options.workers) as pool:
        tasks = [pool.submit(trial, value, whole) for trial, value in trials(options.kills, whole, options.seed)]
        for number, task in enumerate(tasks, start=1):
            result = task.result()
            counts[result.outcome] += 1
            print(f"{number}/{len(tasks)} {result.outcome}: {result.place} {result.message}", flush=True)
    print(dict(counts))
    sys.exit(int(counts["different"] + counts["lost"] > 0))


if __name__ == "__main__":
    main()
