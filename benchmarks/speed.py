"""What a training step costs, beside hand-written PyTorch, Pyro, NumPyro, pythae, and the matrix products alone.

Every program runs in a process of its own, pinned to as many cores as it has threads, and all of them take turns: a
round gives each a tenth of a second or so. Times are medians over the rounds, ratios medians of the ratios within a
round, so that what else the machine does weighs on all alike.

    python benchmarks/speed_environments.py     # once: NumPyro and pythae, each in an environment of its own
    python benchmarks/speed.py [--quick] [--threads 1 2 4] [--workloads W1 W2 W3 W4] [--markdown docs/speed.md]

All of it takes an hour; with --keep the tables that a run before this one wrote stay where they are not made anew.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from speed_environments import python_of
from speed_tables import markdown, written
from speed_worker import WORKLOADS, Workload

FOLDER = Path(__file__).parent
OTHER_ENVIRONMENTS = ("numpyro", "pythae")
# what ratios are of
REFERENCE = "probvae compiled"
PROGRAMS = (
    "pyro",
    "pyro-example",
    "pyro-jit",
    "pythae",
    "eager",
    "fused",
    "compiled",
    "numpyro",
    "probvae",
    "probvae graph",
    "probvae compiled",
    "products",
)
QUICK_PROGRAMS = ("pyro", "fused", "numpyro", "probvae", "probvae graph", "products")
# the example is that of the Bernoulli model, and so is what is written for pythae
BERNOULLI_ONLY = ("pyro-example", "pythae")
SCALING_PROGRAMS = ("pyro", "fused", "probvae graph", "probvae compiled")
SCALING_THREADS = 2
SCALING: dict[str, tuple[int, ...]] = {
    "num_data": (2_000, 60_000, 240_000),
    "data_dim": (100, 784, 3_136),
    "latent_dim": (2, 20, 100),
    "batch_size": (32, 128, 1024),
    "num_draws": (1, 5, 20),
}
_SECONDS_OF_A_TURN = 0.12
# A turn is taken again when other processes used more than this share of the cores
_OTHERS, _MOST_TRIES = 0.1, 3
# How long a round may wait for the others to be done, and how long it looks at a time, in seconds
_PATIENCE, _LOOK = 5.0, 0.1


class ProgramError(RuntimeError):
    """A program could not be built."""


class Program:
    """A process that runs steps on request."""

    def __init__(self, name: str, workload: Workload, threads: int) -> None:
        self.name, own = name, name not in OTHER_ENVIRONMENTS
        interpreter = Path(sys.executable) if own else python_of(name)
        if not interpreter.exists():
            raise ProgramError("not installed: run benchmarks/speed_environments.py")
        file = FOLDER / ("speed_programs.py" if own else f"speed_{name}.py")
        self.process = subprocess.Popen(
            [str(interpreter), str(file), name, json.dumps(asdict(workload))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            preexec_fn=lambda: os.sched_setaffinity(0, cores_for(threads)),
        )
        self.cores, self.built, self.steps = cores_for(threads), self._read(), 1

    def seconds_of_steps(self, num: int) -> float:
        """How long so many steps take."""
        return float(self._ask(num)["seconds"])

    def calibrate(self) -> None:
        """Choose how many steps make a turn."""
        multiple, self.steps = self.built.get("multiple", 1), self.built.get("multiple", 5)
        self.seconds_of_steps(self.steps)
        for _ in range(2):
            seconds = self.seconds_of_steps(self.steps) / self.steps
            self.steps = max(1, round(_SECONDS_OF_A_TURN / seconds / multiple)) * multiple

    def turn(self) -> "Turn":
        """The first turn that other processes left alone, or of a few the one with the least of theirs."""
        tried = []
        while len(tried) < _MOST_TRIES and not (tried and tried[-1].others < _OTHERS):
            tried.append(self._turn())
        return min(tried, key=lambda turn: turn.others)

    def _turn(self) -> "Turn":
        before = busy_seconds(self.cores)
        told = self._ask(self.steps)
        others = busy_seconds(self.cores) - before - told["processor_seconds"]
        return Turn(1000 * told["seconds"] / self.steps, max(0.0, others / told["seconds"] / len(self.cores)))

    def close(self) -> float:
        """End the process; its peak memory in MB."""
        memory = float(self._ask(self.built.get("multiple", 1))["megabytes"])
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(timeout=60)
        return memory

    def _ask(self, num: int) -> dict[str, Any]:
        self.process.stdin.write(f"run {num}\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        content: dict[str, Any] = json.loads(line) if line else {"error": "the process ended"}
        if "error" in content:
            raise ProgramError(content["error"])
        return content


class Turn(NamedTuple):
    """``milliseconds`` a step, and the share of the cores' time that ``others`` took meanwhile."""

    milliseconds: float
    others: float


def cores_for(threads: int) -> list[int]:
    """The last of the cores that there are."""
    return sorted(os.sched_getaffinity(0))[-threads:]


def busy_seconds(cores: list[int]) -> float:
    """What all processes together have used of the cores; Linux counts in hundredths."""
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
    by_core = {line[0]: sum(map(int, line[1:4])) + sum(map(int, line[6:9])) for line in lines}
    return sum(by_core[f"cpu{core}"] for core in cores) / os.sysconf("SC_CLK_TCK")


def wait_for_quiet(threads: int) -> None:
    """Wait until nothing else runs on the cores, but not for ever."""
    cores, end = cores_for(threads), time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        before = busy_seconds(cores)
        time.sleep(_LOOK)
        if busy_seconds(cores) - before < _OTHERS * _LOOK * threads:
            return


def measure(workload: Workload, programs: Iterable[str], threads: int, num_rounds: int) -> dict[str, Any]:
    """Each program's milliseconds a step, build time and memory, and its time in units of the reference's."""
    with started(workload, programs, threads) as (running, failed):
        for program in running:
            program.calibrate()
        turns: dict[str, list[Turn]] = {program.name: [] for program in running}
        for _ in range(num_rounds):
            wait_for_quiet(threads)
            for program in random.sample(running, len(running)):
                turns[program.name].append(program.turn())
        memory = {program.name: program.close() for program in running}
        built = {program.name: program.built for program in running}
    rows = {name: _row(times, turns.get(REFERENCE), built[name], memory[name]) for name, times in turns.items()}
    return {**rows, **{name: {"error": message} for name, message in failed.items()}}


@contextmanager
def started(
    workload: Workload, programs: Iterable[str], threads: int
) -> Iterator[tuple[list[Program], dict[str, str]]]:
    """The programs that can be built, one after the other, and why the others cannot."""
    running: list[Program] = []
    failed = {}
    try:
        for name in programs:
            try:
                running.append(Program(name, workload, threads))
            except ProgramError as error:
                failed[name] = str(error)
        yield running, failed
    finally:
        for program in running:
            program.process.kill()
            program.process.wait()


def _row(
    turns: list[Turn], reference: list[Turn] | None, built: dict[str, Any], memory: float
) -> dict[str, float | None]:
    times = [turn.milliseconds for turn in turns]
    quartiles = statistics.quantiles(times, n=4)
    pairs = zip(turns, reference or (), strict=reference is not None)
    ratios = [own.milliseconds / other.milliseconds for own, other in pairs]
    return {
        "milliseconds": statistics.median(times),
        "lower_quartile": quartiles[0],
        "upper_quartile": quartiles[2],
        "of_reference": statistics.median(ratios) if ratios else None,
        "others": statistics.median(turn.others for turn in turns),
        "build_seconds": built["build_seconds"],
        "megabytes": memory,
    }


def programs_for(workload: Workload, programs: Iterable[str]) -> list[str]:
    """Those that are written for such a workload."""
    bernoulli = workload.likelihood == "bernoulli"
    return [name for name in programs if bernoulli or name not in BERNOULLI_ONLY]


def scaling(num_rounds: int) -> list[dict[str, Any]]:
    """W1 with one of its sizes changed at a time."""
    found = []
    for size, values in SCALING.items():
        for value in values:
            workload = replace(WORKLOADS["W1"], **{size: value})
            if size != "num_data":
                workload = replace(workload, num_data=max(6_000, 2 * workload.batch_size))
            rows = measure(workload, SCALING_PROGRAMS, SCALING_THREADS, num_rounds)
            found.append({"size": size, "value": value, "programs": rows})
            _say(f"{size} {value}", rows)
    return found


def evidence(threads: int, num_rounds: int) -> dict[str, Any]:
    """L_100 on W1's model, and the arithmetic in it: the decoder at each draw."""
    workload = replace(WORKLOADS["W1"], num_data=400, num_draws=100)
    rows = measure(workload, ("evidence", "evidence products"), threads, num_rounds)
    widths = [workload.latent_dim, *reversed(workload.hidden), workload.data_dim]
    operations = 2 * sum(a * b for a, b in pairwise(widths)) * workload.num_data * workload.num_draws
    _say(f"L_100 of 400 data, {threads} threads", rows)
    return {"operations": operations, "num_data": workload.num_data, "programs": rows}


def _say(title: str, rows: dict[str, Any]) -> None:
    told = ", ".join(f"{name} {row['milliseconds']:.3g}" for name, row in rows.items() if "error" not in row)
    errors = "".join(f"\n    {name}: {row['error']}" for name, row in rows.items() if "error" in row)
    print(f"{title}: {told} ms{errors}", flush=True)


def machine() -> dict[str, Any]:
    """Where the numbers are from."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--scaling", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--quality", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--quick", action="store_true", help="a minute: few programs, W1 and W3, two threads")
    parser.add_argument("--evidence", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--keep", action="store_true", help="keep the tables of an earlier run")
    parser.add_argument("--out", type=Path, default=FOLDER / "results/speed.json")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file, between their two marks")
    options = parser.parse_args()
    if options.quick:
        options.threads, options.workloads, options.programs = [2], ["W1", "W3"], list(QUICK_PROGRAMS)
        options.rounds, options.scaling, options.quality = 5, False, False
    kept = json.loads(options.out.read_text()) if options.keep and options.out.exists() else {"steps": {}}
    result: dict[str, Any] = {**kept, "machine": machine()}
    for threads in options.threads:
        for name in options.workloads:
            rows = measure(WORKLOADS[name], programs_for(WORKLOADS[name], options.programs), threads, options.rounds)
            result["steps"].setdefault(str(threads), {})[name] = rows
            _say(f"{name}, {threads} threads", rows)
        if options.evidence:
            result.setdefault("evidence", {})[str(threads)] = evidence(threads, options.rounds)
    if options.scaling:
        result["scaling"] = scaling(options.rounds)
    if options.quality:
        from speed_quality import quality

        result["quality"] = quality()
    result["machine"]["load_after"] = os.getloadavg()[0]
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text(written(options.markdown.read_text(), markdown(result)))


if __name__ == "__main__":
    main()
