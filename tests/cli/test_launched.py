"""`torchrun -m probvae fit`: several processes look like one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.killing import with_fault
from tests.support.command_line import Run
from tests.support.launching import environment, torchrun

FIT = ("fit", "--hidden", "16", "--batch-size", "100", "--no-gap", "--no-figures")
# a long fit is worth the time that torch's compiler takes, and there is nothing to wait for here
LONG = ("--epochs", "1000000", "--compile", "graph")


@pytest.mark.slow
def test_one_of_two_processes_writes_and_tells(probvae: Run, tmp_path: Path) -> None:
    """One summary, one run folder, the numbers of one process."""
    one = probvae(*FIT, "--epochs", "2", "--out", "one", "--json", cwd=tmp_path)
    command = torchrun("--standalone", "-m", "probvae", *FIT, "--epochs", "2", "--out", "two", "--json")
    two = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert two.returncode == 0, two.stderr
    assert json.loads(two.stdout)["elbo"]["value"] == pytest.approx(json.loads(one.stdout)["elbo"]["value"], rel=1e-5)
    assert two.stderr == one.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert '"num_processes": 2' in (tmp_path / "two" / "environment.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2])
def test_run_goes_on_with_another_number_of_processes(first: int, probvae: Run, tmp_path: Path) -> None:
    """Two processes that are killed and one that goes on, or the other way round, are one process within rounding."""
    whole = probvae(*FIT, "--epochs", "6", "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    commands = {number: [sys.executable] if number == 1 else torchrun("--standalone") for number in (1, 2)}
    begun = [*commands[first], "-m", "probvae", *FIT, "--epochs", "6", "--out", "run"]
    faulty = with_fault(environment(), "metrics-appended:4:kill")
    killed = subprocess.run(begun, cwd=tmp_path, env=faulty, capture_output=True, timeout=120)
    assert killed.returncode != 0
    assert not (tmp_path / "run" / "model.safetensors").exists()
    rest = [*commands[3 - first], "-m", "probvae", "fit", "--resume", "run", "--no-gap", "--no-figures"]
    done = subprocess.run(rest, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"num_processes {first} then, {3 - first} now" in done.stderr
    one, two = (_records(tmp_path / name) for name in ("whole", "run"))
    assert [record["epoch"] for record in two] == list(range(1, 7))
    for record, other in zip(one, two, strict=True):
        assert record == pytest.approx(other, rel=1e-5)


def _records(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_process_stops_all(victim: int, tmp_path: Path) -> None:
    command = torchrun("--standalone", "-m", "probvae", *FIT, *LONG, "--out", "run", "--no-progress")
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(tmp_path / "run" / "metrics.jsonl", process)
        os.kill(child_of_rank(victim, process.pid), signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert out == ""
    assert f"rank      : {victim}" in err
    assert "exitcode  : -9" in err
    assert (tmp_path / "run" / "config.toml").exists()


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if file.exists():
            return
        assert process.poll() is None
        time.sleep(0.1)
    raise AssertionError(f"{file} was not written")


def child_of_rank(rank: int, parent: int) -> int:
    """The process that the launcher gave this number."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(int(child) for child in children if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text())


@pytest.mark.slow
def test_mistake_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    for arguments, message in (
        (("fit", "--out", "run"), "probvae: --out: run exists."),
        (("fit", "--prior", "nothing"), "probvae: unknown prior 'nothing'."),
        (("list", "priors"), "Error: torchrun: expected `probvae fit`"),
    ):
        command = torchrun("--standalone", "-m", "probvae", *arguments)
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.count(message) == 1


FAILING = """
import os, sys
from probvae.cli import main
from probvae.errors import DataError
from probvae.models import MLPDecoder

class FailingDecoder(MLPDecoder, name="failing"):
    def forward(self, z):
        self.steps = getattr(self, "steps", 0) + self.training
        if os.environ["RANK"] == "1" and self.steps > 60:
            raise DataError("x: this is what went wrong.")
        return super().forward(z)

main()
"""


@pytest.mark.slow
def test_mistake_of_one_process_is_told_by_it(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    command = torchrun("--standalone", "failing.py", *FIT, "--decoder", "failing", "--no-progress", "--out", "run")
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "probvae: rank 1: --data: this is what went wrong.\n" in done.stderr
    assert "lost the other" not in done.stderr
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2
