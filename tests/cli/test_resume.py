"""Real fits that are stopped on the command line, and go on."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from probvae.inference.training.checkpoints import read_checkpoint, write_checkpoint
from tests.faults.killing import content_of
from tests.support.command_line import Run, run_process

FIT = ("fit", "--hidden", "16", "--no-gap", "--no-figures", "--no-progress", "--epochs")
RESUME = ("fit", "--no-gap", "--no-figures", "--no-progress", "--resume")
LONG = "100000"
# a long fit is worth the time that torch's compiler takes, and there is nothing to wait for here
UNCOMPILED = ("--compile", "graph")


def started(*arguments: str, cwd: Path, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "probvae", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, preexec_fn=before, **pipes)


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("it did not come")


def has_checkpoint(run: Path) -> bool:
    return run.exists() and any((run / "checkpoints").glob("epoch*"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_signal_saves_says_how_to_go_on_and_exits(number: int, code: int, probvae: Run, tmp_path: Path) -> None:
    process = started(*FIT, "30000", *UNCOMPILED, "--out", "run", cwd=tmp_path)
    try:
        wait_until(lambda: has_checkpoint(tmp_path / "run"), process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert out == ""
    assert err.startswith("\nprobvae: interrupted after epoch ")
    assert err.endswith("all until then is saved. Go on with: probvae fit --resume run\n")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    told = probvae("gap", "run", cwd=tmp_path)
    assert told.returncode == 2
    assert "probvae fit --resume run" in told.stderr


def test_interruption_after_the_fit_says_how_to_go_on(tmp_path: Path) -> None:
    process = started("fit", "--hidden", "64", "--no-figures", "--epochs", "2", "--out", "run", cwd=tmp_path)
    try:
        wait_until((tmp_path / "run" / "model.safetensors").exists, process)
        process.send_signal(signal.SIGINT)  # it is at the ledger, which takes seconds
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == ""
    assert err.endswith("probvae: interrupted. Go on with: probvae fit --resume run\n")


@pytest.mark.slow
def test_killed_run_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole = run_process(*FIT, "300", "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    for _ in range(2):
        process = started(*(RESUME if (tmp_path / "run").exists() else (*FIT, "300", "--out")), "run", cwd=tmp_path)
        time.sleep(1.0)
        wait_until(lambda: has_checkpoint(tmp_path / "run"), process)
        process.kill()
        process.communicate()
    done = run_process(*RESUME, "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert content_of(tmp_path / "run") == content_of(tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(probvae: Run, small_run: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path / "run")
    done = probvae(*RESUME, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    expected = content_of(small_run)
    found = content_of(tmp_path / "run")
    # that run had a ledger, and this command was told to make none
    assert {name: found[name] for name in found if name != "summary.json"} == {
        name: expected[name] for name in expected if name != "summary.json"
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--epochs", "5"], "--epochs"), (["--out", "x"], "--out"), (["--set", "training.seed=1"], "--set")],
)
def test_resume_takes_no_other_recipe(arguments: list[str], named: str, probvae: Run, small_run: Path) -> None:
    refused = probvae("fit", "--resume", small_run, *arguments)
    assert refused.returncode == 2
    assert f"expected nothing that changes the run, got {named}" in refused.stderr


def test_no_run_to_resume(probvae: Run, tmp_path: Path) -> None:
    refused = probvae("fit", "--resume", tmp_path / "nowhere")
    assert refused.returncode == 2
    assert "nowhere" in refused.stderr


@pytest.mark.parametrize("number", [None, 1, 3])
def test_checkpoint_of_another_format_is_refused(
    number: int | None, probvae: Run, small_run: Path, tmp_path: Path
) -> None:
    """Whole, with a right checksum, but written by another version; the first ones had no number."""
    run = shutil.copytree(small_run, tmp_path / "run")
    (run / "model.safetensors").unlink()
    for file in (run / "checkpoints").glob("*.safetensors"):
        checkpoint = read_checkpoint(file)
        assert checkpoint.state.scalars["format"] == 2
        others = {name: value for name, value in checkpoint.state.scalars.items() if name != "format"}
        scalars = others if number is None else {**others, "format": number}
        write_checkpoint(file.parent, checkpoint._replace(state=checkpoint.state._replace(scalars=scalars)))
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    refused = probvae(*RESUME, "run", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr == (
        f"probvae: checkpoint epoch-000002.safetensors: expected format 2, got {number}: another version of probvae "
        "wrote it. Resume the fit with that version, or fit anew.\n"
    )
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_changed_data_are_refused(probvae: Run, tmp_path: Path) -> None:
    table = tmp_path / "data.csv"
    table.write_text("a,b\n" + "".join(f"{i},{i * i % 7}\n" for i in range(40)))
    assert (
        probvae(*FIT, "1", "--data", table, "--set", "training.batch_size=8", "--out", tmp_path / "run").returncode == 0
    )
    table.write_text(table.read_text().replace("3,2", "3,4"))
    refused = probvae(*RESUME, tmp_path / "run")
    assert refused.returncode == 2
    assert "its data have other values now" in refused.stderr


def test_second_process_on_a_run_and_a_removed_folder(probvae: Run, tmp_path: Path) -> None:
    process = started(*FIT, LONG, *UNCOMPILED, "--out", "run", cwd=tmp_path)
    try:
        wait_until(lambda: has_checkpoint(tmp_path / "run"), process)
        second = probvae(*RESUME, "run", cwd=tmp_path)
        assert second.returncode == 2
        assert second.stderr.startswith("probvae: run: another process is writing this run.")
        # Renamed first: while single files are removed, the fit may write others, and the folder would stay.
        shutil.rmtree((tmp_path / "run").rename(tmp_path / "removed"))
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("probvae: run")
    assert "No such file or directory" in err
    assert "Traceback" not in err


def test_full_disk(probvae: Run, tmp_path: Path) -> None:
    """Files of this process can have 20 kB: fewer than a checkpoint has, and more than what is written before it."""

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = started(*FIT, "3", "--out", "run", cwd=tmp_path, before=small_files)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert out == ""
    assert "cannot be written" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "run" / "checkpoints").iterdir()), "half a checkpoint"
    done = probvae(*RESUME, "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
