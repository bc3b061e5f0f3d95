"""How often log p(x) lies within two standard errors of its estimates: linear-Gaussian data, where log p(x) is known.

For d = 2, 5, 10, 20 latents (and 2 d dimensions of x) a random model makes the data; the guide is the best diagonal
one, or one whose encoder is off at random. 95 % is asked for. Beside the errors that are reported stands that of the
delta method, sd(w) / (mean(w) sqrt(S)), which heavy tails make too small.

    python benchmarks/evidence_errors.py [--num-data 400] [--dims 2 5 10 20] [--quick]

The last table is a posterior of two equal modes, x ~ N(|z|, c), and a guide that knows one of them.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import probvae
from probvae.inference import best_diagonal_guide, exact_log_evidence
from probvae.inference.evidence.annealing import annealed_log_evidence
from probvae.inference.evidence.importance_sampling import importance_log_evidence
from probvae.models import GaussianLikelihood, LatentModel, LinearGaussianModel, StandardNormalPrior

ROOT = Path(__file__).parent.parent
NOISE, SLOPE = 0.25, 1.5
# Standard deviation of what is added to the guide's weights, times sqrt(d)
OFF = 0.1


def linear_pair(latent_dim: int, off: float, seed: int) -> probvae.VAE:
    """A random linear-Gaussian model in float64, and its best diagonal guide with ``off`` added to its weights."""
    noise = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=noise, dtype=torch.float64)  # noqa: E731
    weight = SLOPE * draw(2 * latent_dim, latent_dim) / math.sqrt(latent_dim)
    model = LinearGaussianModel(weight, draw(2 * latent_dim), NOISE)
    guide = best_diagonal_guide(model)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(off / math.sqrt(latent_dim) * draw(*parameter.shape))
    return probvae.VAE(model, guide)


class Absolute(nn.Module):
    """f(z) = |z|."""

    def forward(self, z: Tensor) -> Tensor:
        return z.abs()


def two_modes(c: float) -> probvae.VAE:
    """x ~ N(|z|, c), whose posterior has two equal modes for x > 0, and a guide at one of them."""
    model = LatentModel(StandardNormalPrior(1), Absolute(), GaussianLikelihood(1, variance=c)).double()
    guide = best_diagonal_guide(LinearGaussianModel(torch.ones(1, 1, dtype=torch.float64), variance=c))
    return probvae.VAE(model, guide)


def log_p_of_two_modes(x: Tensor, c: float) -> Tensor:
    """log 2 + log N(x; 0, 1 + c) + log Phi(m/s), (N,), with m = x / (1 + c), s^2 = c / (1 + c), for x (N, 1)."""
    normal = torch.distributions.Normal
    ratio = x / (1 + c) / math.sqrt(c / (1 + c))
    return (math.log(2) + normal(0.0, math.sqrt(1 + c)).log_prob(x) + normal(0.0, 1.0).cdf(ratio).log())[:, 0]


def measured(value: Tensor, error: Tensor, truth: Tensor, seconds: float) -> dict[str, float]:
    """Shares of data whose truth is within two and three errors, and sizes of errors in nats."""
    distance = (value - truth).abs()
    return {
        "within_2": float((distance <= 2 * error).double().mean()),
        "within_3": float((distance <= 3 * error).double().mean()),
        "bias": float((value - truth).mean()),
        "rmse": float(distance.square().mean().sqrt()),
        "median_error": float(error.median()),
        "seconds": seconds,
    }


def delta_error(log_weight: Tensor) -> Tensor:
    """sd(w) / (mean(w) sqrt(S)) (N,) of log weights (S, N)."""
    ess = (2 * torch.logsumexp(log_weight, 0) - torch.logsumexp(2 * log_weight, 0)).exp()
    return (1 / ess - 1 / len(log_weight)).clamp(min=0).sqrt()


def rows_of(name: str, vae: probvae.VAE, x: Tensor, truth: Tensor, seed: int) -> list[dict[str, Any]]:
    """The measurements of both methods for data ``x`` (N, D) of known log p(x) (N,)."""
    start = time.perf_counter()
    annealed = annealed_log_evidence(vae, x, seed=seed)
    middle = time.perf_counter()
    sampled = importance_log_evidence(vae, x, seed=seed)
    end = time.perf_counter()
    of = {
        "annealed": (annealed.log_evidence, annealed.standard_error, middle - start),
        "annealed, delta method": (annealed.log_evidence, delta_error(annealed.log_weight), middle - start),
        "importance": (sampled.log_evidence, sampled.standard_error, end - middle),
        "importance, delta method": (sampled.log_evidence, (1 / sampled.ess - 1e-3).clamp(min=0).sqrt(), end - middle),
    }
    return [{"data": name, "method": method, **measured(v, e, truth, s)} for method, (v, e, s) in of.items()]


def run(dims: list[int], num_data: int, seed: int, told: Callable[[str], None]) -> list[dict[str, Any]]:
    """All measurements."""
    rows: list[dict[str, Any]] = []
    for latent_dim in dims:
        for guide, off in (("best diagonal", 0.0), ("off", OFF)):
            told(f"d = {latent_dim}, {guide} guide")
            vae = linear_pair(latent_dim, off, seed)
            torch.manual_seed(seed + 1)
            x = vae.model(num_data=num_data).detach()
            with torch.no_grad():
                truth = exact_log_evidence(vae.model, x)
            rows += rows_of(f"d = {latent_dim}, {guide} guide", vae, x, truth, seed + 2)
    for c in (0.1, 0.01):
        told(f"two modes, c = {c}")
        torch.manual_seed(seed + 1)
        x = torch.randn(num_data, 1, dtype=torch.float64).abs() + 0.5
        rows += rows_of(f"two modes, c = {c:g}", two_modes(c), x, log_p_of_two_modes(x, c), seed + 2)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """A table on the terminal."""
    table = Table("data", "method", "within 2 s.e.", "within 3", "bias", "rmse", "median s.e.", "s")
    for row in rows:
        numbers = [f"{row[name]:.3f}" for name in ("bias", "rmse", "median_error")]
        table.add_row(
            row["data"],
            row["method"],
            f"{row['within_2']:.1%}",
            f"{row['within_3']:.1%}",
            *numbers,
            f"{row['seconds']:.0f}",
        )
    Console(width=130).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-data", type=int, default=400)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 5, 10, 20])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="100 data, d = 2 and 5")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/evidence_errors.json")
    options = parser.parse_args()
    dims, num_data = ([2, 5], 100) if options.quick else (options.dims, options.num_data)
    rows = run(dims, num_data, options.seed, print)
    show(rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"num_data": num_data, "seed": options.seed, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
