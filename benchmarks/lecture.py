"""MNIST the way of the lecture (784-400-20, batch 256, Adam 1e-3, binary cross-entropy on grey pixels, 10 epochs).

Prints, beside the losses of three published runs of the lecture's notebook: the training loss of each epoch (with
sampled z), the "test loss" that the notebook prints (z at the posterior mean: not a bound), and the same with sampled
z. Binary cross-entropy of grey pixels is no likelihood, so neither number bounds log p(x).

    PROBVAE_DATA=folder/with/MNIST python benchmarks/lecture.py [--epochs 10] [--seed 1]
"""

import argparse
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from probvae.data import load_data
from probvae.experiments.build import build_objective, build_vae
from probvae.experiments.recipe import read_recipe, resolve
from probvae.inference import bound, fit, plug_in_loss

ROOT = Path(__file__).parent.parent
# Mean and standard deviation over three unmodified public re-runs of the notebook, epoch 10
PUBLISHED = {"train": (107.94, 0.14), "plug_in_test": (98.27, 0.51)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/lecture.json")
    options = parser.parse_args()
    result = run(options.epochs, options.seed)
    show(result)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def run(epochs: int, seed: int) -> dict[str, float]:
    """Fit and evaluate; losses are positive, in nats per datum."""
    recipe = resolve([read_recipe(ROOT / "models/lecture.toml")])
    recipe["training"]["seed"] = seed
    train = torch.from_numpy(load_data("mnist", split="train").x)
    test = torch.from_numpy(load_data("mnist", split="test").x)
    vae = build_vae(recipe, data_dim=784, data_variance=1.0)
    options = {"epochs": epochs, "batch_size": 256, "learning_rate": 1e-3, "schedule": "constant", "seed": seed}
    history = fit(vae, train, objective=build_objective(recipe), **options).history
    return {
        "train": -history[-1]["elbo"],
        "plug_in_test": float(plug_in_loss(vae, test).mean()),
        "sampled_test": -float(bound(vae, test, num_samples=4).elbo.mean()),
        "epochs": len(history),
        "seconds": history[-1]["seconds"],
    }


def show(result: dict[str, float]) -> None:
    table = Table(
        title=f"MNIST, grey pixels, binary cross-entropy + KL after {result['epochs']} epochs (nats per datum)"
    )
    for column in ("loss", "here", "published (3 runs, 10 epochs)"):
        table.add_column(column)
    for name, text in (
        ("train", "training, sampled z"),
        ("plug_in_test", "test, z at the mean: the notebook's, no bound"),
        ("sampled_test", "test, sampled z: comparable with training"),
    ):
        mean, spread = PUBLISHED.get(name, (None, None))
        table.add_row(text, f"{result[name]:.2f}", "-" if mean is None else f"{mean} +- {spread}")
    Console().print(table)


if __name__ == "__main__":
    main()
