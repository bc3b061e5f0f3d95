"""Whether speed costs quality: the ELBO of held-out digits after equal epochs, from paired seeds.

The last minibatch of an epoch is a small one, and counts by its data in both.
"""

import statistics
from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor

import probvae
from probvae.experiments.recipe_data import as_tensor, split

NUM_SEEDS = 5
EPOCHS = 30
BATCH_SIZE = 128
LEARNING_RATE = 1e-3
_NUM_DRAWS = 100
WAYS: dict[str, dict[str, Any]] = {
    "probvae": {"compile": False},
    "probvae graph": {"compile": "graph"},
    "probvae compiled": {"compile": True},
}

Train = Callable[[probvae.VAE, Tensor, int], None]


def quality() -> dict[str, Any]:
    """The mean difference to plain Pyro of each way to train, with its standard error over the seeds."""
    data = probvae.load_data("digits", binarization="fixed")
    train, held_out = (as_tensor(part) for part in split(data, 0.2, 0))
    base = [_elbo(_by_pyro, train, held_out, seed) for seed in range(NUM_SEEDS)]
    differences = {}
    for name, options in WAYS.items():
        values = [_elbo(_by_fit(options), train, held_out, seed) for seed in range(NUM_SEEDS)]
        gains = [value - other for value, other in zip(values, base, strict=True)]
        differences[name] = {
            "difference": statistics.mean(gains),
            "standard_error": statistics.stdev(gains) / NUM_SEEDS**0.5,
        }
    return {"pyro": statistics.mean(base), "differences": differences, "epochs": EPOCHS, "num_seeds": NUM_SEEDS}


def _elbo(train: Train, x: Tensor, held_out: Tensor, seed: int) -> float:
    torch.manual_seed(seed)
    vae = _vae(x.shape[1])
    train(vae, x, seed)
    torch.manual_seed(0)
    return float(probvae.elbo(vae, held_out, _NUM_DRAWS).mean())


def _vae(data_dim: int) -> probvae.VAE:
    model = probvae.LatentModel(
        probvae.StandardNormalPrior(8), probvae.MLPDecoder(8, data_dim, (128,)), probvae.BernoulliLikelihood(data_dim)
    )
    return probvae.VAE(model, probvae.DiagonalGuide(probvae.MLPEncoder(data_dim, (128,)), 8))


def _by_fit(options: dict[str, Any]) -> Train:
    def train(vae: probvae.VAE, x: Tensor, seed: int) -> None:
        settings = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, "schedule": "constant"}
        probvae.fit(vae, x, seed=seed, progress=False, **{**settings, **options})

    return train


def _by_pyro(vae: probvae.VAE, x: Tensor, seed: int) -> None:
    """SVI as Pyro's documentation writes it."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)

    def model(rows: Tensor) -> None:
        pyro.module("model", vae.model)
        vae.model(rows)

    def guide(rows: Tensor) -> None:
        pyro.module("guide", vae.guide)
        vae.guide(rows)

    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": LEARNING_RATE}), pyro.infer.Trace_ELBO())
    for _ in range(EPOCHS):
        for rows in x[torch.randperm(len(x))].split(BATCH_SIZE):
            svi.step(rows)
    pyro.clear_param_store()
