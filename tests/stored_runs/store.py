"""Store a small run of the format that is written now, for the tests of versions to come.

    python tests/stored_runs/store.py

writes tests/stored_runs/v<format>: data.csv, the run that `probvae fit` made of it, and expected.json, the numbers that
every later version has to find again.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

import probvae
from probvae.experiments.recipe_data import as_tensor, load_run_data
from probvae.inference import bound, log_weights
from probvae.inference.evidence.log_evidence import log_evidence
from probvae.storage.untrusted import FORMAT

HERE = Path(__file__).parent
FIT = (
    *("--data", "data.csv", "--labels", "kind", "--latent-dim", "2", "--hidden", "6", "--epochs", "5"),
    *("--batch-size", "32", "--scaling", "standardize", "--out", "run", "--no-figures", "--no-gap", "--no-progress"),
)


def numbers(folder: Path) -> dict[str, float]:
    """The ELBO of the guide and the evidence of the model in ``folder``, nats per datum, in float64."""
    there = Path.cwd()
    os.chdir(folder)  # the recipe's path to its data counts from here
    try:
        vae = probvae.load("run").double()
        x = as_tensor(load_run_data(Path("run"))).double()
    finally:
        os.chdir(there)
    torch.manual_seed(0)
    spread = log_weights(vae.model, vae.guide, x, 64).log_weight.std(0)
    torch.manual_seed(0)
    return {
        "elbo": bound(vae, x, 64).elbo.mean().item(),
        "elbo_error": (spread.square().sum() / 64).sqrt().item() / len(x),
        "log_evidence": log_evidence(vae, x, "quadrature").value.mean().item(),
    }


def store(folder: Path) -> None:
    """A fit of data.csv in ``folder``; what says where and when it was made is left out."""
    subprocess.run([sys.executable, "-m", "probvae", "fit", *FIT], cwd=folder, check=True)
    run = folder / "run"
    shutil.rmtree(run / "checkpoints")
    (run / ".lock").unlink()
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "platform": "Linux"}, indent=2) + "\n")
    (folder / "expected.json").write_text(json.dumps(numbers(folder), indent=2) + "\n")


if __name__ == "__main__":
    target = HERE / f"v{FORMAT}"
    target.mkdir()
    shutil.copy(HERE / "v0" / "data.csv", target)
    store(target)
