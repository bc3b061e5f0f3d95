"""Two real processes against one: the same fit, one writer, and no mistake that leaves one of them waiting."""

import math
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from probvae.errors import RankError
from probvae.inference.training.processes import Processes, process_group
from tests.conftest import Once
from tests.inference.training import shared_fits
from tests.inference.training.shared_fits import CASES, data, fitted, gradients
from tests.support.launching import environment, torchrun

# sums in another order, in float64, over steps of Adam, which divides small gradients by their own size
EQUAL = {"rtol": 1e-7, "atol": 1e-7}


@pytest.fixture(scope="module")
def folder(once: Once) -> Path:
    """Where two processes left what they fitted together."""

    def fit(folder: Path) -> None:
        command = torchrun("--standalone", shared_fits.__file__, folder)
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    return once("two-processes", fit)


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank-{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_equals_one_process(name: str, two: list[dict[str, Any]]) -> None:
    one = fitted(CASES[name]())
    for rank in two:
        assert_close(rank[name]["state"], one["state"], **EQUAL)
        assert rank[name]["stopped"] == one["stopped"]
        assert rank[name]["best"] == one["best"]
        for record, expected in zip(rank[name]["history"], one["history"], strict=True):
            assert numbers(record) == pytest.approx(numbers(expected), rel=1e-7, abs=1e-7)


@pytest.mark.filterwarnings("ignore::probvae.errors.PathWarning")  # some guide looks its data up
@pytest.mark.parametrize("name", CASES)
def test_traced_steps_equal_one_process(name: str, two: list[dict[str, Any]]) -> None:
    one = fitted(CASES[name](), compile="graph")
    for rank in two:
        assert rank["graph"][name]["path"] == one["path"]
        assert_close(rank["graph"][name]["state"], one["state"], **EQUAL)


@pytest.mark.parametrize("name", CASES)
def test_processes_have_the_same_weights(name: str, two: list[dict[str, Any]]) -> None:
    first, second = (rank[name] for rank in two)
    assert all(torch.equal(first["state"][key], second["state"][key]) for key in first["state"])
    assert first["history"] == second["history"]


def test_cases_reach_what_they_are_for(two: list[dict[str, Any]]) -> None:
    assert two[0]["patience"]["stopped"] != "all epochs done"
    assert {two[0]["graph"][name]["path"] for name in ("default", "full, iwae", "conditional")} == {"traced"}
    assert two[0]["optimal c"]["history"][0]["variance"] != two[0]["optimal c"]["history"][1]["variance"]


def test_gradients(two: list[dict[str, Any]]) -> None:
    one = gradients(Processes(), data().float())
    for rank in two:
        assert_close(rank["gradients"], one, rtol=1e-6, atol=1e-6)


def test_one_writer(folder: Path, two: list[dict[str, Any]]) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["rank-0.pt", "rank-1.pt", "run-0"]
    assert len((folder / "run-0" / "metrics.jsonl").read_text().splitlines()) == 3


def test_loss_that_one_process_cannot_take(two: list[dict[str, Any]]) -> None:
    """All end with the message of the one that met it, and with the same good weights."""
    first, second = (rank["mistakes"]["refused"] for rank in two)
    assert first["error"] == second["error"] == "NonFiniteLossError"
    assert first["message"] == second["message"]
    assert "site 'x', epoch 3, batch 1: Expected parameter loc" in first["message"]
    assert "those after epoch 2" in first["message"]
    assert all(torch.equal(first["state"][key], second["state"][key]) for key in first["state"])
    assert all(tensor.isfinite().all() for tensor in first["state"].values())


def test_step_that_one_process_cannot_take_is_skipped_by_all(two: list[dict[str, Any]]) -> None:
    """From the third epoch on it has no loss for its share of two minibatches; the third is the other's alone."""
    first, second = (rank["mistakes"]["refused twice"] for rank in two)
    assert first["error"] is None
    assert first["history"] == second["history"]
    assert [record["skipped_steps"] for record in first["history"]] == [0, 0, 2, 2]
    assert all(torch.equal(first["state"][key], second["state"][key]) for key in first["state"])


SETTINGS = "distributed: expected the same settings in all processes, got in ranks 0 and 1: "


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("other data", "DataError", "distributed: expected the same data and models in all processes, rank 1 differs"),
        ("too small", "ArgumentError", "batch_size: expected at least one datum for each of the 2 processes, got 1"),
        ("mmd", "ArgumentError", "objective 'mmd': expected a mean over the data"),
        ("other learning rate", "ConfigError", SETTINGS + "learning_rate 0.01 and 0.02."),
        ("other patience", "ConfigError", SETTINGS + "patience 2 and 3."),
        ("other beta", "ConfigError", SETTINGS + "objective.beta 1.0 and 2.0."),
        ("other c", "ConfigError", SETTINGS + "likelihood.variance 1.0 and 2.0."),
        ("free bits", "ArgumentError", "free_bits: expected a mean over the data"),
    ],
)
def test_what_cannot_be_shared(name: str, error: str, message: str, two: list[dict[str, Any]]) -> None:
    for rank in two:
        assert rank["mistakes"][name]["error"] == error
        assert rank["mistakes"][name]["message"].startswith(message)


def test_shares_are_all_rows_once() -> None:
    processes = Processes()
    for size in (1, 2, 3, 5):
        for num_data in (1, 2, 7, 16):
            processes.size, shares = size, []
            for processes.rank in range(size):
                shares.append(processes.my_slice(num_data))
            rows = [row for share in shares for row in range(share.start, share.stop)]
            lengths = [share.stop - share.start for share in shares]
            assert rows == list(range(num_data))
            assert max(lengths) - min(lengths) <= 1
            assert lengths[0] == math.ceil(num_data / size)


def test_without_a_launcher_there_is_one_process() -> None:
    with process_group() as processes:
        assert (processes.rank, processes.size, processes.is_writer) == (0, 1, True)


def test_launcher_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RankError, match="rank 1 lost the other processes"), process_group(timedelta(seconds=1)):
        pass


WAIT = """
import sys
from datetime import timedelta
from probvae.cli import main
from probvae.inference.training import launch
launch.START_TIMEOUT = timedelta(seconds=7)
sys.argv = "probvae fit --data iris --batch-size 32 --epochs 1 --hidden 4 --out run".split()
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_that_waits_says_what_for_and_ends(rank: str, tmp_path: Path) -> None:
    """RANK and WORLD_SIZE are left over from another program: nobody comes."""
    left = {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29522"}
    done = subprocess.run(
        [sys.executable, "-c", WAIT], cwd=tmp_path, env=environment() | left, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("probvae: ")]
    assert lines[0].startswith(
        f"probvae: rank {rank} of 2 waits for the other processes at localhost:29522 (for 7 seconds at most)."
    )
    assert "remove RANK, WORLD_SIZE and MASTER_ADDR" in lines[0]
    assert "lost the other processes at localhost:29522, before all 2 had come" in lines[1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_silent_process_is_not_waited_for() -> None:
    command = torchrun("--standalone", shared_fits.__file__, "stall")
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "RankError: distributed: rank 0 lost the other processes" in done.stderr


def numbers(record: dict[str, Any]) -> dict[str, float]:
    return {name: -1.0 if value is None else value for name, value in record.items()}
