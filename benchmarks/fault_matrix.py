"""The fault matrix: which diagnostic sees which fault, and how often.

Into an exact posterior one fault is put at a time (tests/diagnostics/fault_matrix.py), a whole diagnosis is made on
400 data, and the verdicts that fail are counted over the repetitions. Without a fault, reports with any ``fail`` are
false alarms.

    python benchmarks/fault_matrix.py [--repetitions 20] [--reports 200] [--workers 2] [--markdown docs/fault-matrix.md]
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.diagnostics.fault_matrix import CASES, NO_FAULT, NUM_DATA, NUM_SIMULATIONS, Count, count  # noqa: E402

# no fault of its own: what is right there has a seed that no fault has
_FIRST_SEED_WITHOUT_FAULT = 1000
# columns of the table: verdicts of both calibrations stand together
COLUMNS = {
    "gap": ("gap/total",),
    "k": ("importance/pareto_k",),
    "ESS": ("importance/ess",),
    "SBC": ("calibration/sbc", "calibration_on_data/sbc"),
    "central": ("calibration/central_coverage", "calibration_on_data/central_coverage"),
    "HPD": ("calibration/hpd_coverage", "calibration_on_data/hpd_coverage"),
    "TARP": ("calibration/tarp", "calibration_on_data/tarp"),
    "log w": ("calibration/log_weight", "calibration_on_data/log_weight"),
    "C2ST": ("calibration/c2st", "calibration_on_data/c2st"),
    "z": ("calibration/z_score", "calibration_on_data/z_score"),
    "spread": ("calibration/spread", "calibration_on_data/spread"),
    "collapse": ("latent_usage/collapse",),
    "q(z)": ("latent_usage/aggregate_posterior",),
    "PPC": ("prediction/statistics",),
    "log p": ("prediction/typicality",),
}


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=20, help="of each fault")
    parser.add_argument("--reports", type=int, default=200, help="without a fault")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/fault_matrix.json")
    options = parser.parse_args()
    start = time.perf_counter()
    jobs = [(name, seed) for name in CASES for seed in range(options.repetitions)]
    jobs += [("", _FIRST_SEED_WITHOUT_FAULT + number) for number in range(options.reports)]
    found = dict(_run(jobs, options.workers))
    faults = {name: _sum(found, name) for name in CASES}
    result = {
        "faults": faults,
        "no_fault": _sum(found, ""),
        "num_data": NUM_DATA,
        "num_simulations": NUM_SIMULATIONS,
        "seconds": round(time.perf_counter() - start, 1),
    }
    show(result)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(result))


def _run(jobs: list[tuple[str, int]], workers: int) -> Iterable[tuple[tuple[str, int], Count]]:
    with multiprocessing.get_context("spawn").Pool(workers, initializer=partial(torch.set_num_threads, 1)) as pool:
        yield from track(pool.imap_unordered(_one, jobs), total=len(jobs), console=Console(stderr=True))


def _one(job: tuple[str, int]) -> tuple[tuple[str, int], Count]:
    name, seed = job
    case = CASES[name] if name else NO_FAULT[seed % len(NO_FAULT)]
    return job, count([(case, seed)])


def _sum(found: dict[tuple[str, int], Count], name: str) -> dict[str, Any]:
    counts = [count for (fault, _), count in found.items() if fault == name]
    by_column = {
        title: sum(any(verdict in count.fails for verdict in verdicts) for count in counts)
        for title, verdicts in COLUMNS.items()
    }
    return {
        "num": len(counts),
        "any_fail": sum(count.any_fail for count in counts),
        "any_fail_or_warning": sum(count.any_alarm for count in counts),
        "by_diagnostic": by_column,
    }


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table's rows: the fault, each diagnostic's count, and that of reports with any fail."""
    named = {**result["faults"], "no fault": result["no_fault"]}
    return [
        (name, *(str(number or "·") for number in row["by_diagnostic"].values()), f"{row['any_fail']}/{row['num']}")
        for name, row in named.items()
    ]


def show(result: dict[str, Any]) -> None:
    """One table."""
    table = Table("fault", *COLUMNS, "any", title="repetitions in which a diagnostic fails", caption=_caption(result))
    for row in rows(result):
        table.add_row(*row)
    Console(width=150).print(table)


def markdown(result: dict[str, Any]) -> str:
    """The same, for the documentation."""
    head = ["fault", *COLUMNS, "any"]
    lines = [head, ["---"] * len(head), *rows(result)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{_caption(result)}\n"


def _caption(result: dict[str, Any]) -> str:
    return (
        f"{result['num_data']} data and {result['num_simulations']} simulated pairs in each; "
        f"{result['no_fault']['any_fail_or_warning']} of {result['no_fault']['num']} reports without a fault have a "
        "warning or a fail"
    )


if __name__ == "__main__":
    main()
