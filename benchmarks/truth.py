"""How good the truth is that the ledger stands on: a two-dimensional VAE on the digits.

Prints the ledger of 500 data against quadrature with its time, and how often and how tightly bidirectional annealing
brackets the quadrature value on data simulated from the fitted model.

    python benchmarks/truth.py [--threads 2] [--num-data 500] [--num-simulated 100] [--temperatures 200]
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from probvae import VAE, fit, load_data, posterior_gap
from probvae.experiments.build import build_vae
from probvae.experiments.recipe import resolve
from probvae.inference.evidence.annealing import bracket_log_evidence
from probvae.inference.evidence.quadrature import quadrature

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--num-data", type=int, default=500)
    parser.add_argument("--num-simulated", type=int, default=100)
    parser.add_argument("--temperatures", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/truth.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vae, x = fitted()
    result = {
        "threads": options.threads,
        **ledger(vae, x[: options.num_data]),
        **brackets(vae, options.num_simulated, options.temperatures),
    }
    show(result)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def fitted() -> tuple[VAE, torch.Tensor]:
    """The default VAE, fitted to all digits."""
    x = torch.from_numpy(load_data("digits").x)
    vae = build_vae(resolve([]), 64, float(x.var(0, correction=0).mean()))
    fit(vae, x, epochs=100, learning_rate=2e-3, schedule="cosine")
    return vae, x


def ledger(vae: VAE, x: torch.Tensor) -> dict[str, Any]:
    """The ledger, its worst evidence error (nats), and the seconds it took."""
    start = time.perf_counter()
    summary = posterior_gap(vae, x, truth="quadrature").summary()
    return {"ledger": summary, "ledger_seconds": time.perf_counter() - start}


def brackets(vae: VAE, num_data: int, num_temperatures: int) -> dict[str, Any]:
    """How many simulated data have quadrature's log p(x) within three standard errors of the bounds; the mean width."""
    start = time.perf_counter()
    bracket = bracket_log_evidence(vae, num_data, num_temperatures=num_temperatures, start="refined")
    lower, upper = bracket.interval()
    seconds = time.perf_counter() - start
    log_p = quadrature(vae.model, bracket.x, tolerance=1e-5, guide=vae.guide).log_evidence
    inside, width = (lower <= log_p) & (log_p <= upper), (upper - lower).mean()
    return {"bracketed": float(inside.double().mean()), "mean_width": float(width), "bracket_seconds": seconds}


def show(result: dict[str, Any]) -> None:
    table = Table(title=f"Digits, two latent dimensions, {result['threads']} threads")
    for column in ("what", "measured", "asked"):
        table.add_column(column)
    summary = result["ledger"]
    for name in ("total", "approximation", "amortisation"):
        value, error = summary[name]["value"], summary[name]["standard_error"]
        table.add_row(f"{name} gap, nats per datum", f"{value:.4f} +- {error:.4f}", "-")
    table.add_row(f"ledger of {summary['num_data']} data, seconds", f"{result['ledger_seconds']:.1f}", "below 60")
    table.add_row("largest evidence error, nats", f"{summary['truth_error']:.1e}", "below 1e-4")
    table.add_row("simulated data bracketed", f"{100 * result['bracketed']:.0f} %", "at least 95 %")
    table.add_row("mean width of the bracket, nats", f"{result['mean_width']:.3f}", "below 0.3")
    table.add_row("bracket, seconds", f"{result['bracket_seconds']:.1f}", "-")
    Console().print(table)


if __name__ == "__main__":
    main()
