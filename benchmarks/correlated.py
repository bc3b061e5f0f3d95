"""What each family of guides loses on a correlated posterior, where the truth is in closed form.

The model is linear-Gaussian, and its posterior has the correlation rho in two dimensions. It stays as it is; guides
with a linear encoder are fitted to data that it simulates, with the path-derivative gradient. The gap is exact
evidence minus ELBO over fresh data, in closed form for the normals and by draws for the others; the best possible gap
stands beside it where it is known: -log(1 - rho^2) / 2 for the diagonal normal, and zero for every family that
contains the posterior.

    python benchmarks/correlated.py [--rho 0.8] [--seed 0] [--epochs 300] [--out FILE]
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from probvae import (
    VAE,
    DiagonalGuide,
    FlowGuide,
    FullCovarianceGuide,
    Guide,
    LinearEncoder,
    LinearGaussianModel,
    LowRankGuide,
    MixtureGuide,
    exact_log_evidence,
    exact_posterior,
    fit,
)
from probvae.inference import analytic_kl, log_weights
from probvae.inference.densities.kl import has_analytic_kl
from probvae.inference.objectives import STLObjective

ROOT = Path(__file__).parent.parent
VARIANCE = 0.25
# Of each latent, given the other; it is more than the prior's in every direction for correlations up to 0.9
CONDITIONAL_PRECISION = 12.0
# A family of normals is fitted with larger steps than the networks of a flow bear
GUIDES: dict[str, tuple[Callable[[], Guide], float]] = {
    "diagonal": (lambda: DiagonalGuide(LinearEncoder(2), 2), 5e-2),
    "low-rank (1)": (lambda: LowRankGuide(LinearEncoder(2), 2), 5e-2),
    "full-covariance": (lambda: FullCovarianceGuide(LinearEncoder(2), 2), 5e-2),
    "mixture (2)": (lambda: MixtureGuide(LinearEncoder(2), 2, num_components=2), 5e-2),
    "mixture (2, full)": (lambda: MixtureGuide(LinearEncoder(2), 2, num_components=2, covariance="full"), 5e-2),
    "flow": (lambda: FlowGuide(LinearEncoder(2), 2), 1e-2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rho", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/correlated.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_default_dtype(torch.float64)
    result = {
        "rho": options.rho,
        "seed": options.seed,
        "epochs": options.epochs,
        "guides": compare(options.rho, options.seed, options.epochs),
    }
    show(result)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def correlated_model(rho: float) -> LinearGaussianModel:
    """A model whose posterior has the correlation ``rho``: W from its precision I + W^T W / c."""
    precision = CONDITIONAL_PRECISION * torch.tensor([[1.0, -rho], [-rho, 1.0]])
    factor = torch.linalg.cholesky(precision - torch.eye(2))
    return LinearGaussianModel(VARIANCE**0.5 * factor.T, variance=VARIANCE).requires_grad_(False)


def compare(rho: float, seed: int, epochs: int) -> dict[str, dict[str, float | None]]:
    """For each guide the fitted gap, its standard error, the best possible gap, and the seconds of the fit."""
    torch.manual_seed(seed)
    model = correlated_model(rho)
    x, fresh = model(num_data=400), model(num_data=400)
    best = {"diagonal": -0.5 * math.log(1 - rho**2), "mixture (2)": None}
    result = {}
    for name, (make, learning_rate) in GUIDES.items():
        torch.manual_seed(seed)
        vae, start = VAE(model, make()), time.perf_counter()
        fit(
            vae,
            x,
            objective=STLObjective(num_particles=4),
            epochs=epochs,
            batch_size=100,
            learning_rate=learning_rate,
            schedule="cosine",
            seed=seed,
            progress=False,
        )
        seconds = time.perf_counter() - start
        result[name] = {**gap(vae, fresh), "best": best.get(name, 0.0), "seconds": seconds}
    return result


@torch.no_grad()
def gap(vae: VAE, x: Tensor, num_samples: int = 1000) -> dict[str, float]:
    """Exact log p(x) minus the ELBO, averaged over the data, in nats: in closed form for normals, else by draws."""
    q, posterior = vae(x), exact_posterior(vae.model, x)
    if has_analytic_kl(q, posterior):
        return {"gap": float(analytic_kl(q, posterior).mean()), "standard_error": 0.0}
    weights = log_weights(vae.model, vae.guide, x, num_samples=num_samples).log_weight
    gaps = (exact_log_evidence(vae.model, x) - weights).mean(1)
    return {"gap": float(gaps.mean()), "standard_error": float(gaps.std() / num_samples**0.5)}


def show(result: dict) -> None:
    table = Table(title=f"log p(x) - ELBO of fitted guides, posterior correlation {result['rho']} (nats per datum)")
    for column in ("guide", "gap", "standard error", "best in its family", "seconds"):
        table.add_column(column)
    for name, row in result["guides"].items():
        best = "not known" if row["best"] is None else f"{row['best']:.6f}"
        table.add_row(name, f"{row['gap']:.4g}", f"{row['standard_error']:.0e}", best, f"{row['seconds']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
