"""Two moons: what a richer prior wins in evidence, and what a richer guide wins in the posterior.

Priors: models with the same decoder and different priors are fitted to scikit-learn's two moons, and log p(x) of
held-out data is computed by quadrature (d = 2, exact to 1e-4 nats). The differences to the standard normal prior are
paired: same data, so that the standard error is that of the difference.

Guides: for the model with the standard normal prior, which stays as it is, guides of several families are trained; the
approximation gap is that of the best member of each family for each datum, against quadrature.

    python benchmarks/two_moons.py [--threads 2] [--epochs 300] [--num-data 2000] [--num-held-out 500]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import make_moons
from torch import Tensor

from probvae import VAE, fit, posterior_gap
from probvae.experiments.build import build_vae
from probvae.experiments.recipe import resolve
from probvae.inference.evidence.log_evidence import log_evidence

ROOT = Path(__file__).parent.parent
PRIORS: dict[str, dict[str, Any]] = {
    "standard-normal": {"name": "standard-normal"},
    "mixture": {"name": "mixture", "num_components": 8},
    "flow": {"name": "flow"},
}
GUIDES: dict[str, dict[str, Any]] = {
    "diagonal": {"name": "diagonal"},
    "full-covariance": {"name": "full-covariance"},
    "mixture": {"name": "mixture", "num_components": 3},
    "flow": {"name": "flow"},
}
NOISE = 0.08
# c begins near where it ends, so that the latents are not switched off first
START_VARIANCE = 0.1
# few hidden units: the decoder alone cannot tear the plane into two moons
DECODER = {"name": "mlp", "hidden": [16]}
ENCODER = {"name": "mlp", "hidden": [64, 64]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--num-data", type=int, default=2000)
    parser.add_argument("--num-held-out", type=int, default=500)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/two_moons.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x, held_out = moons(options.num_data, 0), moons(options.num_held_out, 1)
    result = {
        "priors": compare_priors(x, held_out, options.epochs),
        "guides": compare_guides(x, held_out, options.epochs),
    }
    show(result)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def moons(num: int, seed: int) -> Tensor:
    """Two moons with Gaussian noise, as (num, 2)."""
    points, _ = make_moons(num, noise=NOISE, random_state=seed)
    return torch.from_numpy(points).float()


def fitted(x: Tensor, prior: dict[str, Any], guide: dict[str, Any], epochs: int, model: VAE | None = None) -> VAE:
    """A VAE with these parts, fitted to x; with ``model``, its model stays as it is and only the guide is fitted."""
    recipe = resolve(
        [{"model": {"prior": prior, "decoder": DECODER}, "inference": {"guide": guide, "encoder": ENCODER}}]
    )
    vae = build_vae(recipe, 2, START_VARIANCE)
    if model is not None:
        vae = VAE(model.model.requires_grad_(False), vae.guide)
    fit(vae, x, epochs=epochs, learning_rate=5e-3, schedule="cosine", batch_size=200)
    return vae


def compare_priors(x: Tensor, held_out: Tensor, epochs: int) -> dict[str, Any]:
    """log p of the held-out data under each prior, and the paired differences to the first."""
    full = {"name": "full-covariance"}
    log_p = {
        name: log_evidence(fitted(x, prior, full, epochs), held_out, "quadrature") for name, prior in PRIORS.items()
    }
    first = log_p["standard-normal"].value
    return {
        name: {
            "log_evidence": mean_of(estimate.value),
            "numerical_error": float(estimate.standard_error.max()),
            "difference": mean_of(estimate.value - first),
        }
        for name, estimate in log_p.items()
    }


def compare_guides(x: Tensor, held_out: Tensor, epochs: int) -> dict[str, Any]:
    """The ledger of each guide for one model, and the paired differences of the approximation gap to the first."""
    model = fitted(x, PRIORS["standard-normal"], GUIDES["diagonal"], epochs)
    ledgers = {}
    for name, guide in GUIDES.items():
        vae = fitted(x, PRIORS["standard-normal"], guide, epochs, model)
        ledgers[name] = posterior_gap(vae, held_out, truth="quadrature")
    first = ledgers["diagonal"].approximation.value
    return {
        name: {**ledger.summary(), "difference": mean_of(ledger.approximation.value - first)}
        for name, ledger in ledgers.items()
    }


def mean_of(values: Tensor) -> dict[str, float]:
    """Mean and standard error over the data."""
    return {"value": float(values.mean()), "standard_error": float(values.std() / len(values) ** 0.5)}


def show(result: dict[str, Any]) -> None:
    """Two tables."""
    priors = Table("prior", "log p(x), held out", "difference", title="evidence by quadrature, nats per datum")
    for name, row in result["priors"].items():
        priors.add_row(name, text(row["log_evidence"]), text(row["difference"]))
    guides = Table("guide", "approximation gap", "amortisation gap", "difference", title="one model, nats per datum")
    for name, row in result["guides"].items():
        guides.add_row(name, text(row["approximation"]), text(row["amortisation"]), text(row["difference"]))
    for table in (priors, guides):
        Console().print(table)


def text(estimate: dict[str, float]) -> str:
    """``value ± standard error`` and, for a difference, how many of them it is."""
    return f"{estimate['value']:.4f} ± {estimate['standard_error']:.4f}"


if __name__ == "__main__":
    main()
