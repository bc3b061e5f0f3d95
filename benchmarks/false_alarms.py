"""False alarms: how often the tests of a report reject an exact guide, and how often a report has a fail.

Data from the model itself and its exact posterior as the guide: counts and binary data with one and two latents,
and a prior of two modes. A whole report is made again and again, with N rows and N simulated pairs (100 at least). A
p-value is right where it is below 0.05 in 5 % of the reports; the table has the test that is farthest from that.

    python benchmarks/false_alarms.py [--sizes 25 100 500 2000] [--repetitions 400 400 100 50] [--workers 2]
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import probvae  # noqa: E402
from probvae.diagnostics.diagnose import diagnose  # noqa: E402
from tests.diagnostics.conjugate import binary_vae, count_vae  # noqa: E402
from tests.diagnostics.faults import bimodal_vae  # noqa: E402

CASES: dict[str, Callable[[], probvae.VAE]] = {
    "Poisson, d = 1": partial(count_vae, 1),
    "Poisson, d = 2": partial(count_vae, 2),
    "Bernoulli, d = 1": partial(binary_vae, 1),
    "Bernoulli, d = 2": partial(binary_vae, 2),
    "mixture prior, d = 2": bimodal_vae,
}
LEVEL, MOST_FAILS = 0.05, 0.02
_LEAST_SIMULATIONS = 100
# apart from the seeds of the diagnostics, which are the repetition's own
_DATA_SEED = 5_000_000
Job = tuple[str, int, int]


def report(job: Job) -> tuple[Job, dict[str, Any]]:
    """The p-values of one report without a fault, and the names of the verdicts that fail and warn."""
    name, num_data, seed = job
    vae = CASES[name]()
    x = probvae.sample(vae, num_data, seed=_DATA_SEED + seed).x
    found = diagnose(vae, x, num_simulations=max(_LEAST_SIMULATIONS, num_data), seed=seed)
    p_values = {test.name: test.p_value for section in found.sections.values() for test in section.tests()}
    named = {status: [v.name for v in found.verdicts if v.status == status] for status in ("fail", "warn")}
    return job, {"p": p_values, **named}


def summarise(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The shares of p-values below the level with the farthest in standard errors, and those of reports that fail."""
    num = len(found)
    error = math.sqrt(LEVEL * (1 - LEVEL) / num)
    names = list(found[0]["p"])
    below = {name: sum(one["p"][name] < LEVEL for one in found) / num for name in names}
    distance = {name: (share - LEVEL) / error for name, share in below.items()}
    farthest = max(distance, key=lambda name: abs(distance[name]))
    return {
        "num": num,
        "below_level": below,
        "smallest_p": min(min(one["p"].values()) for one in found),
        "farthest": farthest,
        "standard_errors": distance[farthest],
        "num_within": sum(abs(value) <= 3 for value in distance.values()),
        "num_tests": len(names),
        "any_fail": sum(bool(one["fail"]) for one in found) / num,
        "any_warning_or_fail": sum(bool(one["fail"] or one["warn"]) for one in found) / num,
        "fails": sorted({name for one in found for name in one["fail"]}),
    }


HEAD = ("case", "N", "reports", "tests with a right p", "farthest test", "its P(p < .05)", "any fail", "any alarm")


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table: one row for each case and number of data."""
    return [
        (
            one["case"],
            str(one["num_data"]),
            str(one["num"]),
            f"{one['num_within']} of {one['num_tests']}",
            one["farthest"],
            f"{one['below_level'][one['farthest']]:.3f}",
            f"{one['any_fail']:.1%}",
            f"{one['any_warning_or_fail']:.1%}",
        )
        for one in result["rows"]
    ]


def markdown(result: dict[str, Any]) -> str:
    """The same, for the documentation."""
    lines = [HEAD, ("---",) * len(HEAD), *rows(result)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    """Run, print, write; exit code 1 where a p-value is not right, or fails are too many."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[25, 100, 500, 2000])
    parser.add_argument("--repetitions", type=int, nargs="+", default=[400, 400, 100, 50], help="for each size")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/false_alarms.json")
    options = parser.parse_args()
    start = time.perf_counter()
    sizes = list(zip(options.sizes, options.repetitions, strict=True))
    jobs = [(name, size, seed) for size, number in sizes for seed in range(number) for name in CASES]
    with multiprocessing.get_context("spawn").Pool(options.workers, partial(torch.set_num_threads, 1)) as pool:
        progress = track(pool.imap_unordered(report, jobs), total=len(jobs), console=Console(stderr=True))
        found = dict(progress)
    table = [
        {"case": name, "num_data": size, **summarise([found[name, size, seed] for seed in range(number)])}
        for size, number in sizes
        for name in CASES
    ]
    result = {"rows": table, "seconds": round(time.perf_counter() - start, 1)}
    shown = Table(*HEAD, title="reports on exact guides")
    for line in rows(result):
        shown.add_row(*line)
    Console(width=160).print(shown)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(result))
    total = sum(one["num"] for one in table)
    fails = sum(one["any_fail"] * one["num"] for one in table) / total
    print(f"any fail: {fails:.2%} of {total} reports")
    sys.exit(int(fails > MOST_FAILS or any(one["num_within"] < one["num_tests"] for one in table)))


if __name__ == "__main__":
    main()
