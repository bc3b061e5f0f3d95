"""One program of the speed benchmark in a process of its own, which runs as many steps as it is asked for.

The standard library only: it runs in the environments of other packages too. The benchmark writes ``run 20`` on the
standard input, and reads a line of JSON.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# runs so many training steps, and returns when they are done
Run = Callable[[int], None]


@dataclass(frozen=True)
class Workload:
    """A model and its data.

    ``likelihood`` is "bernoulli" or "gaussian" (with one learned c), ``covariance`` the guide's ("diagonal" or "full"),
    and ``hidden`` the widths of the encoder's layers; the decoder has them in reverse. With more than one draw a datum
    the objective is the importance-weighted bound.
    """

    likelihood: str
    num_data: int
    data_dim: int
    hidden: Sequence[int]
    latent_dim: int
    batch_size: int
    covariance: str = "diagonal"
    num_draws: int = 1

    @property
    def num_batches(self) -> int:
        """Full batches of one epoch; no program takes the rest."""
        return self.num_data // self.batch_size


WORKLOADS = {
    "W1": Workload("bernoulli", 60_000, 784, (400,), 20, 128),
    "W2": Workload("gaussian", 60_000, 784, (512, 512), 16, 256),
    "W3": Workload("gaussian", 1_000, 10, (), 2, 100),
    "W4": Workload("gaussian", 60_000, 784, (512, 512), 16, 256, "full"),
}


def serve(programs: dict[str, Callable[[Workload], Run]]) -> None:
    """Build the program that the command line names, then answer until the input ends."""
    # what a library prints must not stand between the answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, workload = sys.argv[1], Workload(**json.loads(sys.argv[2]))

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    start, imported = time.perf_counter(), peak_memory()
    try:
        run = programs[name](workload)
        run(3)
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}".split("\n")[0][:200]})
        raise
    answer({"build_seconds": time.perf_counter() - start, "imported_megabytes": imported, **getattr(run, "told", {})})
    for line in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        run(int(line.split()[1]))
        seconds, used = time.perf_counter() - start, time.process_time() - used
        answer({"seconds": seconds, "processor_seconds": used, "megabytes": peak_memory()})


def peak_memory() -> float:
    """The largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
