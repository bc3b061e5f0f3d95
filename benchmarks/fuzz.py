"""The command line on bad input of every kind: how often it ends in a message, and how often in something worse.

Damaged, lying and hostile files (.npy, .npz, .csv, .parquet, .toml, the files of a run folder) and command lines are
generated (tests/faults), each from its kind and a number, so that any of them can be made again. Most run in a few
long-lived processes, with an alarm of 10 s and the peak of memory measured for each; some through the real
``python -m probvae``. Right are a message with exit code 2, a whole run (where the input was not bad after all), and a
fit that failed with a message (exit code 1). Anything else is a failure; its input is kept.

    python benchmarks/fuzz.py [--cases 20000] [--real 300] [--seed 0] [--workers 2] [--kinds npy csv]
    python benchmarks/fuzz.py --case csv:1234
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.faults.running import (  # noqa: E402
    HANG,
    KINDS,
    MEMORY,
    RIGHT,
    SECONDS,
    TOO_MUCH_MEMORY,
    Outcome,
    contents,
    prepare,
    run_case,
    verdict_on,
)
from tests.support.memory import limited_memory  # noqa: E402

CRASH = "crash"
# The largest memory of a process includes what its parent had when it was started: it gets a parent that has little.
_PARENT = """
import os, sys
null = os.open(os.devnull, os.O_WRONLY)
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)])
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""
# beyond what is in use: a case that asks for more is refused it, and the machine stays usable
_SPARE = 4 * 2**30
# after the alarm: code that no signal reaches. Of a real process: to start Python and torch on a busy machine
_GRACE, _STARTING = 20, 20
_FAILURES_SHOWN = 20
Job = tuple[str, int]


def bad_inputs(
    num: int,
    seed: int = 0,
    *,
    real: int = 0,
    workers: int = 1,
    kinds: Iterable[str] = tuple(KINDS),
    progress: bool = False,
) -> dict[str, Any]:
    """Run ``num`` cases, the kinds in turn, and ``real`` more in processes of their own; count what they came to.

    ``by_kind`` has a count of verdicts for each kind, ``failures`` those that are not right, each with its case.
    """
    names, start = list(kinds), time.perf_counter()
    jobs = [(names[number % len(names)], seed * 10**6 + number // len(names)) for number in range(num + real)]
    outcomes = dict(_outcomes(jobs[:num], _in_workers, workers, progress))
    outcomes |= dict(_outcomes(jobs[num:], lambda: run_for_real, workers, progress))
    failures = {f"{kind}:{number}": asdict(o) for (kind, number), o in outcomes.items() if o.verdict not in RIGHT}
    by_kind = {name: dict(Counter(o.verdict for (kind, _), o in outcomes.items() if kind == name)) for name in names}
    return {
        "num": num,
        "real": real,
        "by_kind": by_kind,
        "verdicts": dict(Counter(outcome.verdict for outcome in outcomes.values())),
        "failures": failures,
        "slowest_seconds": max(outcome.seconds for outcome in outcomes.values()),
        "largest_memory_mb": max(outcome.memory for outcome in outcomes.values()) >> 20,
        "seconds": round(time.perf_counter() - start, 1),
    }


def run_for_real(job: Job) -> Outcome:
    """One case through ``python -m probvae``, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="case-") as home:
        folder, temporary = Path(home, "work"), Path(home, "tmp")
        folder.mkdir()
        temporary.mkdir()
        arguments = prepare(*job, folder)
        before, start = contents(folder), time.perf_counter()
        try:
            code, message, memory = _process(arguments, folder, temporary)
        except ValueError:  # a NUL in an argument: no process can be given one
            return Outcome(RIGHT[0], "no such command line", 0.0, 0, arguments)
        left = [*(contents(folder) - before), *contents(temporary)]
        verdict, detail = verdict_on(code, message, left, folder)
        seconds = time.perf_counter() - start
        if code == -signal.SIGKILL:
            verdict = HANG
        elif memory > MEMORY:
            verdict = TOO_MUCH_MEMORY
        return Outcome(verdict, detail, seconds, memory, arguments)


def _process(arguments: list[str], folder: Path, temporary: Path) -> tuple[int, str, int]:
    """Exit code, stderr, and the largest memory (bytes); a process that does not end is killed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-ISc", _PARENT, sys.executable, "-m", "probvae", *arguments]
    with tempfile.TemporaryFile() as err:
        parent = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            start_new_session=True,
        )
        try:
            told, _ = parent.communicate(timeout=SECONDS + _STARTING)
        except subprocess.TimeoutExpired:
            os.killpg(parent.pid, signal.SIGKILL)
            parent.communicate()
            told = b"%d 0" % -signal.SIGKILL
        err.seek(0)
        code, memory = map(int, told.split())
        return code, err.read().decode("utf-8", "replace"), memory * 1024


def _outcomes(
    jobs: list[Job], make: Callable[[], Callable[[Job], Outcome]], workers: int, progress: bool
) -> Iterator[tuple[Job, Outcome]]:
    run = make()
    with ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(run, job): job for job in jobs}
        done = as_completed(waiting)
        for future in track(done, total=len(jobs), console=Console(stderr=True), disable=not progress):
            yield waiting[future], future.result()


def _in_workers() -> Callable[[Job], Outcome]:
    """A function that runs a case in a long-lived process, one for each thread that calls it."""
    local = threading.local()

    def run(job: Job) -> Outcome:
        if not hasattr(local, "worker") or not local.worker.is_alive():
            local.worker = Worker()
        return local.worker.run(job)

    return run


class Worker:
    """A process that runs one case after another, and is killed where one never ends."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def is_alive(self) -> bool:
        """Whether it can take another case."""
        return self._process.is_alive()

    def run(self, job: Job) -> Outcome:
        """What the case came to."""
        self._connection.send(job)
        try:
            if self._connection.poll(SECONDS + _STARTING + _GRACE):
                return self._connection.recv()
            verdict, detail = HANG, "no signal reached it"
        except EOFError:
            verdict, detail = CRASH, "the process is gone"
        self._process.kill()
        self._process.join()
        return Outcome(verdict, detail, SECONDS, 0, [])


def _serve(connection: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    with limited_memory(_SPARE), contextlib.suppress(EOFError):  # when there is no more to do
        while True:
            connection.send(run_case(*connection.recv()))


def keep(failures: dict[str, Any], folder: Path) -> None:
    """Write the inputs that failed below ``folder``, each with its command line and what came of it."""
    for case, outcome in failures.items():
        kind, number = case.split(":")
        place = folder / f"{kind}-{number}"
        place.mkdir(parents=True, exist_ok=True)
        if not any(place.iterdir()):
            prepare(kind, int(number), place)
        (place / "outcome.json").write_text(json.dumps(outcome, indent=2) + "\n")


def show(result: dict[str, Any]) -> None:
    """Counts by kind, and the first failures."""
    verdicts = sorted(result["verdicts"], key=lambda verdict: (verdict not in RIGHT, verdict))
    table = Table("input", *verdicts, title=f"{result['num']} bad inputs, {result['real']} of them as processes")
    for kind, counts in result["by_kind"].items():
        table.add_row(kind, *(str(counts.get(verdict, "·")) for verdict in verdicts))
    console = Console()
    console.print(table)
    for case, outcome in list(result["failures"].items())[:_FAILURES_SHOWN]:
        console.print(f"{case}: {outcome['verdict']}: {outcome['detail'][-300:]!a}", markup=False)
    print(
        f"{len(result['failures'])} failures; slowest {result['slowest_seconds']:.1f} s, "
        f"most memory {result['largest_memory_mb']} MB; {result['seconds']} s in all"
    )


def main() -> None:
    """Run, print, write; exit code 1 where a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--real", type=int, default=300, help="more of them, each in a process of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--case", metavar="KIND:NUMBER", help="one case only, in this process")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/fuzz.json")
    options = parser.parse_args()
    if options.case:
        kind, number = options.case.split(":")
        print(json.dumps(asdict(run_case(kind, int(number))), indent=2))
        return
    result = bad_inputs(
        options.cases, options.seed, real=options.real, workers=options.workers, kinds=options.kinds, progress=True
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    keep(result["failures"], options.out.with_suffix(""))
    show(result)
    sys.exit(bool(result["failures"]))


if __name__ == "__main__":
    main()
