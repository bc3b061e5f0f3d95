"""Two processes of two threads against one of four: data a second, and where the time goes.

    python benchmarks/distributed.py [--rounds 3] [--batch-size 1024] [--out distributed.json]

The workload is W2 of the issue (784-512-512-16, Gaussian with a learned c) through ``probvae.fit``. The two ways take
turns, each in processes of its own, and the ratio is that of the paired epochs' medians. An epoch's time is the
difference of two marks in the history, the first epoch (which warms up) left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist

NUM_DATA, DATA_DIM, EPOCHS = 8192, 784, 4
NUM_WEIGHTS = 1_350_000  # float32, 5.4 MB: the gradient of W2


def work(folder: Path, batch_size: int) -> None:
    """One process of one run: fit, and write the data a second of each epoch but the first."""
    import probvae
    from probvae.inference import DiagonalGuide, MLPEncoder, fit
    from probvae.inference.training.processes import process_group
    from probvae.models import GaussianLikelihood, LatentModel, MLPDecoder, StandardNormalPrior

    torch.manual_seed(0)
    x = torch.rand(NUM_DATA, DATA_DIM)
    decoder = MLPDecoder(16, DATA_DIM, hidden=(512, 512))
    model = LatentModel(StandardNormalPrior(16), decoder, GaussianLikelihood(DATA_DIM, variance="learned"))
    vae = probvae.VAE(model, DiagonalGuide(MLPEncoder(DATA_DIM, hidden=(512, 512)), 16))
    with process_group() as ranks:
        result = fit(vae, x, epochs=EPOCHS, batch_size=batch_size, compile="graph", progress=False)
        exchange = _seconds_of_a_sum() if ranks.size > 1 else 0.0
    if ranks.is_writer:
        marks = [record["seconds"] for record in result.history]
        rates = [NUM_DATA / (after - before) for before, after in pairwise(marks)]
        measured = {"rates": rates, "elbo": result.history[-1]["elbo"], "exchange": exchange}
        (folder / "measured.json").write_text(json.dumps(measured))


def _seconds_of_a_sum() -> float:
    flat, seconds = torch.ones(NUM_WEIGHTS), []
    for _ in range(20):
        start = time.perf_counter()
        dist.all_reduce(flat)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(processes: int, threads: int, batch_size: int) -> dict[str, object]:
    """One run of its own, by the launcher where there are several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *(launcher if processes > 1 else []), __file__, "--batch-size", str(batch_size)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run([*command, "--work", folder], env=environment, check=True)
        return json.loads((Path(folder) / "measured.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(arguments.work, arguments.batch_size)
        return
    load = os.getloadavg()[0]
    pairs = [
        (measure(1, 4, arguments.batch_size), measure(2, 2, arguments.batch_size)) for _ in range(arguments.rounds)
    ]
    one, two = ([statistics.median(each["rates"]) for each in way] for way in zip(*pairs, strict=True))
    result = {
        "load": load,
        "batch_size": arguments.batch_size,
        "one process, four threads (data/s)": statistics.median(one),
        "two processes, two threads each (data/s)": statistics.median(two),
        "ratio (median of pairs)": statistics.median(b / a for a, b in zip(one, two, strict=True)),
        "sum of the gradients (ms)": 1e3 * statistics.median(two["exchange"] for _, two in pairs),
        "difference of the last epoch's ELBO (relative)": max(abs(b["elbo"] / a["elbo"] - 1) for a, b in pairs),
    }
    for name, value in result.items():
        print(f"{name:50s} {value:.4g}")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
