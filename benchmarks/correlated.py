"""A posterior with correlation 0.8: what each family of guides loses, fitted, against the closed form.

The model is linear with Gaussian noise, so that p(z|x) is normal with the same covariance for every x, and log p(x) is
exact. It stays as it is; each guide is fitted to data simulated from it with the path-derivative gradient. The diagonal
family must lose -log(1 - rho^2)/2 = 0.510826 nats; low rank 1 plus diagonal and full covariance contain the posterior.

    python benchmarks/correlated.py [--threads 2] [--epochs 100]
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from probvae import VAE, LinearEncoder, LinearGaussianModel, elbo, exact_log_evidence, fit
from probvae.inference import (
    DiagonalGuide,
    FlowGuide,
    FullCovarianceGuide,
    Guide,
    LowRankGuide,
    MixtureGuide,
    STLObjective,
)

ROOT = Path(__file__).parent.parent
RHO = 0.8
GUIDES: dict[str, Any] = {
    "diagonal": lambda: DiagonalGuide(LinearEncoder(3), 2),
    "low-rank (1)": lambda: LowRankGuide(LinearEncoder(3), 2, rank=1),
    "full-covariance": lambda: FullCovarianceGuide(LinearEncoder(3), 2),
    "mixture (2)": lambda: MixtureGuide(LinearEncoder(3), 2, num_components=2),
    "flow": lambda: FlowGuide(LinearEncoder(3), 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/correlated.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = correlated_model()
    torch.manual_seed(0)
    x = model(num_data=1000).detach()
    result = {name: gap_of(model, make().double(), x, options.epochs) for name, make in GUIDES.items()}
    show(result)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def correlated_model() -> LinearGaussianModel:
    """P = 6 [[1, -rho], [-rho, 1]]: W is chosen so that I + W^T W / c is that."""
    precision = 6 * torch.tensor([[1.0, -RHO], [-RHO, 1.0]], dtype=torch.float64)
    c = 0.5
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(3, 2, generator=generator, dtype=torch.float64))[0]
    factor = torch.linalg.cholesky(c * (precision - torch.eye(2, dtype=torch.float64)))
    model = LinearGaussianModel(turn @ factor.T, torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64), c)
    return model.requires_grad_(False)


def gap_of(model: LinearGaussianModel, guide: Guide, x: Tensor, epochs: int) -> dict[str, float]:
    """log p(x) - ELBO after the fit, mean and standard error over the data and 2000 draws for each, in nats."""
    vae = VAE(model, guide)
    fit(vae, x, epochs=epochs, learning_rate=5e-3, schedule="cosine", batch_size=100, objective=STLObjective(2))
    gap = exact_log_evidence(model, x) - elbo(vae, x, num_samples=2000)
    return {"gap": float(gap.mean()), "standard_error": float(gap.std() / len(gap) ** 0.5)}


def show(result: dict[str, dict[str, float]]) -> None:
    """One table, with the closed form where there is one."""
    expected = {"diagonal": -0.5 * math.log(1 - RHO**2), "low-rank (1)": 0.0, "full-covariance": 0.0}
    table = Table("guide", "fitted gap", "closed form", title=f"posterior correlation {RHO}, nats per datum")
    for name, row in result.items():
        text = f"{row['gap']:.7f} ± {row['standard_error']:.1g}"
        table.add_row(name, text, f"{expected[name]:.6f}" if name in expected else "")
    Console().print(table)


if __name__ == "__main__":
    main()
