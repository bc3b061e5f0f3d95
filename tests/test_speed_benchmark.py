"""The programs that the speed benchmark compares compute the same thing, and its tables say what was measured."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor, nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def programs() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    import speed_networks
    import speed_tables
    import speed_worker

    yield {"networks": speed_networks, "tables": speed_tables, "worker": speed_worker}
    sys.path.remove(str(BENCHMARKS))


def small(programs: Any, **sizes: Any) -> Any:
    given = {"num_data": 24, "data_dim": 5, "hidden": (7, 6), "latent_dim": 3, "batch_size": 4, **sizes}
    return programs["worker"].Workload(**given)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("hidden", [(), (7, 6)])
def test_loss_by_hand_is_that_of_pyro(programs: Any, likelihood: str, covariance: str, hidden: tuple[int, ...]) -> None:
    workload = small(programs, likelihood=likelihood, covariance=covariance, hidden=hidden)
    networks = programs["networks"]
    model, guide, loss = (kind(workload).double() for kind in (networks.Model, networks.Guide, networks.Loss))
    loss.encoder, loss.decoder = guide.encoder, model.decoder
    if likelihood == "gaussian":
        nn.init.constant_(model.decoder.log_variance, 0.3)
    x = networks.make_data(workload)[:4].double()
    by_hand = at_seed(lambda: loss(x))
    by_pyro = at_seed(lambda: pyro.infer.Trace_ELBO().differentiable_loss(model, guide, x))
    assert by_hand.item() == pytest.approx(by_pyro.item(), rel=1e-12)


def at_seed(evaluate: Any) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return evaluate()


def test_matrix_products_are_those_of_the_networks(programs: Any) -> None:
    """As many operations as PyTorch counts in a step of the same networks."""
    from torch.utils.flop_counter import FlopCounterMode

    workload = small(programs, likelihood="bernoulli")
    loss, x = programs["networks"].Loss(workload), programs["networks"].make_data(workload)[:4]
    with FlopCounterMode(display=False) as counter:
        loss(x).backward()
    products = programs["networks"].matrix_products(workload)
    assert counter.get_total_flops() == sum(2 * n * k * m for n, k, m in products)


def test_batches_are_a_shuffled_epoch(programs: Any) -> None:
    workload = small(programs, likelihood="gaussian")
    batches = programs["networks"].Batches(workload)
    epoch = torch.cat([batches().clone() for _ in range(workload.num_batches)])
    assert not torch.equal(epoch, batches.x)
    assert torch.equal(epoch.sort(0).values, batches.x.sort(0).values)


def test_worker_answers_with_times_or_the_reason_why_not() -> None:
    workload = (
        '{"likelihood": "gaussian", "num_data": 24, "data_dim": 5, "hidden": [], "latent_dim": 2, "batch_size": 4}'
    )
    command = "from speed_worker import serve; serve({'wait': lambda w: lambda n: None, 'broken': lambda w: 1 / 0})"
    for name, answers in (("wait", ["build_seconds", "seconds", "seconds"]), ("broken", ["error"])):
        done = subprocess.run(
            [sys.executable, "-c", command, name, workload],
            cwd=BENCHMARKS,
            input="run 3\nrun 5\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert [next(iter(json.loads(line))) for line in done.stdout.splitlines()] == answers


def test_tables(programs: Any) -> None:
    tables = programs["tables"]
    row = {"milliseconds": 1.25, "of_reference": 2.5, "build_seconds": 3.0, "megabytes": 100.0, "others": 0.0}
    machine = {"processor": "P", "cores": 4, "python": "3", "date": "today", "load": 0.0, "load_after": 1.0}
    result = {
        "machine": machine,
        "steps": {"2": {"W1": {"pyro": row, "numpyro": {"error": "not installed"}}}},
        "evidence": {"2": {"operations": 3e8, "programs": {"evidence": row, "evidence products": row}}},
    }
    text = tables.markdown(result)
    assert "| Pyro, `SVI` with `Trace_ELBO` | 1.25 (2.5) |" in text
    assert "| NumPyro, jitted scan over minibatches | not run |" in text
    assert "| 2 | 240 | 240 |" in text
    page = f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n"
    again = tables.written(tables.written(page, "numbers\n"), text)
    assert again.startswith("before\n")
    assert again.endswith("\nafter\n")
    assert "old" not in again
    assert text in again


def test_steps_of_fit_can_be_timed() -> None:
    """The benchmark reaches into `fit` for its steps."""
    workload = {"likelihood": "gaussian", "num_data": 24, "data_dim": 5, "hidden": [], "latent_dim": 2, "batch_size": 4}
    done = subprocess.run(
        [sys.executable, "speed_programs.py", "probvae graph", json.dumps(workload)],
        cwd=BENCHMARKS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        input="run 3\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert [next(iter(json.loads(line))) for line in done.stdout.splitlines()] == ["build_seconds", "seconds"], (
        done.stderr
    )
