"""What a fit survives: kills, full disks, bad input, extreme numbers; and what being able to survive costs.

    python benchmarks/reliability.py [--kills 100] [--inputs 20000] [--extremes 50] [--rounds 7] [--workers 2]

Prints a table and writes JSON; exit code 1 where anything was lost, different or not told.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from benchmarks.fuzz import bad_inputs  # noqa: E402
from tests.faults.extremes import extremes  # noqa: E402
from tests.faults.killing import trials, whole_run  # noqa: E402

OVERHEAD = 0.05


def kills(num: int, workers: int) -> dict[str, Any]:
    """Real fits, killed and resumed, against one that nobody disturbed."""
    with tempfile.TemporaryDirectory() as home:
        whole = whole_run(Path(home))
    with ThreadPoolExecutor(workers) as pool:
        tasks = [pool.submit(trial) for trial in trials(num, whole)]
        results = [task.result() for task in track(tasks, "kills", console=Console(stderr=True))]
    counts = Counter(result.outcome for result in results)
    wrong = [result._asdict() for result in results if result.outcome != "same" or result.message]
    return {"num": len(results), "random_times": num, "counts": counts, "wrong": wrong}


def overhead(rounds: int) -> dict[str, Any]:
    """The default fit with and without a run folder, in turns: the median of the paired ratios, less one."""
    ratios = []
    for number in track(range(rounds), "checkpoints", console=Console(stderr=True)):
        with tempfile.TemporaryDirectory() as home:
            ways: list[Callable[[], float]] = [lambda: _seconds(None), lambda: _seconds(Path(home) / "run")]
            order = [0, 1] if number % 2 else [1, 0]
            seconds = {way: ways[way]() for way in order}
        ratios.append(seconds[1] / seconds[0])
    return {"overhead": statistics.median(ratios) - 1, "ratios": ratios}


def _seconds(out: Path | None) -> float:
    import torch

    import probvae
    from probvae.experiments.build import build_vae
    from probvae.experiments.recipe import resolve
    from probvae.experiments.recipe_data import as_tensor

    recipe, data = resolve([]), probvae.load_data("digits")
    torch.manual_seed(0)
    vae = build_vae(recipe, data.data_dim, 1.0, data.num_data, None, data.image_shape)
    start = time.perf_counter()
    probvae.fit(vae, as_tensor(data), out=out, progress=False, **recipe["training"])
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--extremes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/reliability.json")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    if options.rounds:
        result["overhead"] = overhead(options.rounds)
    if options.inputs:
        real = min(300, options.inputs // 60)
        found = bad_inputs(options.inputs, real=real, workers=options.workers, progress=True)
        result["inputs"] = {**found, "wrong": found["failures"]}
    if options.kills:
        result["kills"] = kills(options.kills, options.workers)
    if options.extremes:
        result["extremes"] = extremes(options.extremes, workers=options.workers, progress=True)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    sys.exit(int(any(part.get("wrong") for part in result.values())))


def show(result: dict[str, Any]) -> None:
    """The table."""
    table = Table("what", "how often", "what became of it")
    if "overhead" in result:
        share = result["overhead"]["overhead"]
        table.add_row("checkpoints of the default fit", f"{len(result['overhead']['ratios'])}", f"{share:+.1%} time")
    if "inputs" in result:
        told = ", ".join(f"{verdict}: {number}" for verdict, number in sorted(result["inputs"]["verdicts"].items()))
        table.add_row("bad inputs", str(result["inputs"]["num"] + result["inputs"]["real"]), told)
    if "kills" in result:
        counts = ", ".join(f"{outcome}: {number}" for outcome, number in sorted(result["kills"]["counts"].items()))
        table.add_row("kills and full disks", str(result["kills"]["num"]), counts)
    if "extremes" in result:
        counts = ", ".join(f"{verdict}: {number}" for verdict, number in sorted(result["extremes"]["counts"].items()))
        table.add_row("numerical extremes", str(result["extremes"]["num"]), counts)
    Console().print(table)


if __name__ == "__main__":
    main()
