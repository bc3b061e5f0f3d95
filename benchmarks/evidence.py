"""L_K by importance sampling on the model 784-400-20 (Bernoulli): seconds, GFLOP/s, and the share of what is possible.

What is possible is the decoder's matrix products alone, by PyTorch's faster route, in blocks that stay in the cache;
beside ours stands the way through Pyro's handlers, a block of 256 draws at a time. All are run in turn, several times:
medians. The weights are random, which changes no time; x is as sparse as MNIST. With --mnist they are the test images
of MNIST (in the folder that PROBVAE_DATA names) and a model that was fitted for two epochs, without the handlers.

    python benchmarks/evidence.py [--quick] [--num-data 10000] [--num-samples 100] [--threads 4] [--repeats 5]
    python benchmarks/evidence.py --mnist --num-samples 5000 --repeats 1
    python benchmarks/evidence.py --scaling [--num-data 256]      # K = 1 to 5000: time of a draw, peak memory

Every K of the scaling has a process of its own, and the products beside it in the same one; its memory is what the
process takes beyond the model, the data and one evaluation of two images.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import probvae
from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.traces import log_weights
from probvae.inference.evidence.importance_sampling import importance_log_evidence

ROOT = Path(__file__).parent.parent
DATA_DIM, HIDDEN, LATENT_DIM = 784, 400, 20
# multiplications and additions of the decoder for one z
OPERATIONS = 2 * HIDDEN * (LATENT_DIM + DATA_DIM)
NUMBERS_OF_DRAWS = (1, 10, 100, 1000, 5000)
_ROWS, _HANDLER_DRAWS, _HANDLER_ROWS = 1024, 256, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-data", type=int, default=10_000)
    parser.add_argument("--num-samples", type=int, default=100)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mnist", action="store_true", help="MNIST's test images and a fitted model")
    parser.add_argument("--quick", action="store_true", help="640 data, three repeats")
    parser.add_argument("--scaling", action="store_true", help="K = 1 to 5000 instead")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/evidence.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(one_of_the_scaling(options.num_data, options.num_samples)))
        return
    if options.scaling:
        scaling(options.num_data, options.threads, options.out)
        return
    num_data, repeats = (640, 3) if options.quick else (options.num_data, options.repeats)
    result = run(num_data, options.num_samples, repeats, options.mnist)
    show(result)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def run(num_data: int, num_samples: int, repeats: int, mnist: bool = False) -> dict[str, Any]:
    """Seconds of each way, one after the other in every round."""
    vae, x = fitted_to_mnist(num_data) if mnist else make(num_data)
    importance_log_evidence(vae, x[:2], 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak: list[float] = []
    values: list[Tensor] = []

    def ours() -> None:
        values.append(importance_log_evidence(vae, x, num_samples).log_evidence)
        peak.append((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)

    ways: dict[str, Callable[[], object]] = {
        "matrix products alone": lambda: products(vae, num_data * num_samples),
        "probvae": ours,
    }
    if not mnist:
        ways["through Pyro's handlers"] = lambda: through_handlers(vae, x, num_samples)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    load = os.getloadavg()[0]
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    operations = OPERATIONS * num_data * num_samples
    limit = statistics.median(seconds["matrix products alone"])
    rows = {
        name: {
            "seconds": statistics.median(values),
            "gflops": operations / statistics.median(values) / 1e9,
            "share_of_limit": limit / statistics.median(values),
            "best_share_of_limit": min(seconds["matrix products alone"]) / min(values),
        }
        for name, values in seconds.items()
    }
    settings = {"num_data": num_data, "num_samples": num_samples, "threads": torch.get_num_threads(), "load": load}
    told = {"mean": float(values[0].double().mean()), "peak_megabytes": peak[0]}
    return {**settings, **told, "torch": torch.__version__, "repeats": repeats, "ways": rows}


def one_of_the_scaling(num_data: int, num_samples: int) -> dict[str, float | None]:
    """One K in this process, between two runs of the products; no share where one block of those is more."""
    vae, x = make(num_data)
    importance_log_evidence(vae, x[:2], 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    runs: list[Callable[[], object]] = [
        lambda: products(vae, num_data * num_samples),
        lambda: importance_log_evidence(vae, x, num_samples),
        lambda: products(vae, num_data * num_samples),
    ]
    for way in runs:
        start = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - start)
    return {
        "num_samples": num_samples,
        "microseconds_of_a_draw": seconds[1] / (num_data * num_samples) * 1e6,
        "share_of_limit": (seconds[0] + seconds[2]) / 2 / seconds[1] if num_data * num_samples >= _ROWS else None,
        "peak_megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "load": os.getloadavg()[0],
    }


def scaling(num_data: int, threads: int, out: Path) -> None:
    """A table over K."""
    rows = []
    for num_samples in NUMBERS_OF_DRAWS:
        options = ["--num-data", str(num_data), "--num-samples", str(num_samples), "--threads", str(threads)]
        command = [sys.executable, __file__, "--one", *options]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    table = Table(title=f"L_K of {num_data} data, {threads} threads")
    for column in ("K", "microseconds a draw", "of the products", "MB at the peak", "load"):
        table.add_column(column)
    for row in rows:
        number, draw, share, memory, load = row.values()
        table.add_row(
            str(number), f"{draw:.2f}", "" if share is None else f"{share:.0%}", f"{memory:.0f}", f"{load:.1f}"
        )
    Console().print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_stem(f"{out.stem}_scaling").write_text(json.dumps(rows, indent=2) + "\n")


def make(num_data: int) -> tuple[probvae.VAE, Tensor]:
    with isolated_seed(0):
        model = probvae.LatentModel(
            probvae.StandardNormalPrior(LATENT_DIM),
            probvae.MLPDecoder(LATENT_DIM, DATA_DIM, (HIDDEN,), activation="relu"),
            probvae.BernoulliLikelihood(DATA_DIM),
        )
        guide = probvae.DiagonalGuide(probvae.MLPEncoder(DATA_DIM, (HIDDEN,), activation="relu"), LATENT_DIM)
        return probvae.VAE(model, guide), (torch.rand(num_data, DATA_DIM) < 0.13).float()


def fitted_to_mnist(num_data: int) -> tuple[probvae.VAE, Tensor]:
    vae, _ = make(1)
    train, test = (
        torch.from_numpy(probvae.load_data("mnist", split=split, binarization="threshold").x)
        for split in ("train", "test")
    )
    probvae.fit(vae, train, epochs=2, learning_rate=1e-3, schedule="constant", compile="graph", progress=True)
    return vae, test[:num_data]


@torch.no_grad()
def products(vae: probvae.VAE, num_draws: int) -> None:
    """The affine layers of the decoder and nothing else."""
    layers = [layer for layer in vae.model.decoder.network if isinstance(layer, torch.nn.Linear)]
    z = torch.randn(_ROWS, LATENT_DIM)
    for _ in range(num_draws // _ROWS):
        value = z
        for layer in layers:
            value = torch.ops.mkldnn._linear_pointwise(value, layer.weight, layer.bias, "none", [], "")


@torch.no_grad()
def through_handlers(vae: probvae.VAE, x: Tensor, num_samples: int) -> Tensor:
    """L_K by traces of model and guide."""
    parts = []
    for rows in x.split(_HANDLER_ROWS):
        sizes = [min(_HANDLER_DRAWS, num_samples - start) for start in range(0, num_samples, _HANDLER_DRAWS)]
        blocks = [log_weights(vae.model, vae.guide, rows, size).log_weight.logsumexp(0) for size in sizes]
        parts.append(torch.stack(blocks).logsumexp(0))
    return torch.cat(parts)


def show(result: dict[str, Any]) -> None:
    title = (
        f"L_{result['num_samples']} of {result['num_data']} data, {result['threads']} threads, "
        f"load {result['load']:.1f} before, medians of {result['repeats']}; the mean of log p(x) is "
        f"{result['mean']:.2f} nats, the peak of memory {result['peak_megabytes']:.0f} MB"
    )
    table = Table(title=title)
    for column in ("", "seconds", "GFLOP/s", "of the products", "by the best times"):
        table.add_column(column)
    for name, way in result["ways"].items():
        shares = (f"{way[key]:.0%}" for key in ("share_of_limit", "best_share_of_limit"))
        table.add_row(name, f"{way['seconds']:.2f}", f"{way['gflops']:.0f}", *shares)
    Console().print(table)


if __name__ == "__main__":
    main()
