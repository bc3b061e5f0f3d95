"""A fit that was stopped and resumed is, bit for bit, one that was not."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

import probvae
from probvae.errors import ArgumentError, CheckpointWarning, FitInterruptedError, RunError
from probvae.inference import Objective
from probvae.inference.training.checkpoints import newest_checkpoint, read_checkpoint

NUM_DATA, DIM = 70, 3
WAYS: list[str | bool] = [False, "graph"]


def data() -> Tensor:
    return torch.randn(NUM_DATA, DIM, generator=torch.Generator().manual_seed(3))


def make() -> probvae.VAE:
    torch.manual_seed(1)
    return probvae.VAE.example()


def fitted(out: Path, x: Any = None, **options: Any) -> tuple[dict[str, Tensor], str]:
    """The weights and the records of a fit, which has a smaller last minibatch."""
    settings = {"epochs": 4, "batch_size": 16, "seed": 5, "progress": False, **options}
    vae = make()
    probvae.fit(vae, data() if x is None else x, out=out, **settings)
    return vae.state_dict(), (out / "metrics.jsonl").read_text()


def same(one: tuple[dict[str, Tensor], str], two: tuple[dict[str, Tensor], str]) -> bool:
    return one[1] == two[1] and all(torch.equal(one[0][name], two[0][name]) for name in one[0] | two[0])


def broken_off(run: Path, folder: Path) -> Path:
    """A copy of a run as it was when its last checkpoint but one was written, in the middle of what came then."""
    shutil.copytree(run, folder)
    newest = newest_checkpoint(folder / "checkpoints")
    (folder / "checkpoints" / newest.name).unlink()
    (folder / "model.safetensors").unlink()
    metrics = folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-40])
    return folder


@pytest.mark.parametrize("compile", WAYS)
@pytest.mark.parametrize("seconds", [300.0, 1e-9], ids=["between-epochs", "within-an-epoch"])
@pytest.mark.parametrize("objective", list(Objective.registry))
def test_every_objective(objective: str, seconds: float, compile: str | bool, tmp_path: Path) -> None:
    options = {"objective": objective, "checkpoint_seconds": seconds, "compile": compile, "epochs": 2}
    whole = fitted(tmp_path / "run", **options)
    stopped = broken_off(tmp_path / "run", tmp_path / "stopped")
    assert same(fitted(stopped, resume=True, **options), whole)


@pytest.mark.parametrize(
    "options",
    [
        {"validation": 0.2, "patience": 2, "learning_rate": 0.1, "epochs": 30},
        {"schedule": "cosine", "gradient_clip": 0.1},
        {"kl_warmup": 3, "validation": 0.2},
    ],
    ids=["patience", "cosine", "warm-up"],
)
def test_options(options: dict[str, Any], tmp_path: Path) -> None:
    whole = fitted(tmp_path / "run", checkpoint_seconds=1e-9, **options)
    stopped = broken_off(tmp_path / "run", tmp_path / "stopped")
    assert same(fitted(stopped, resume=True, checkpoint_seconds=1e-9, **options), whole)


class Stopping(Dataset):
    """Rows that send a signal to this process when they have been asked for so many times."""

    def __init__(self, after: int, number: int) -> None:
        self.rows, self.after, self.number = data(), after, number

    def __len__(self) -> int:
        return NUM_DATA

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        self.after -= 1
        if self.after == 0:
            os.kill(os.getpid(), self.number)
        return [self.rows[index] for index in indices]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", range(9, 22, 3))
def test_signal_ends_the_fit_after_the_step(number: int, after: int, tmp_path: Path) -> None:
    whole = fitted(tmp_path / "run", Stopping(10**9, number))
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(FitInterruptedError, match=r"Go on with: probvae fit --resume .*stopped") as raised:
        fitted(tmp_path / "stopped", Stopping(after, number))
    assert raised.value.signal_number == number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert same(fitted(tmp_path / "stopped", Stopping(10**9, number), resume=True), whole)


def test_run_without_a_checkpoint_begins_anew(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.unlink()
    assert same(fitted(tmp_path / "run", resume=True), whole)


def test_damaged_checkpoint_is_told_and_the_one_before_it_taken(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "run", checkpoint_seconds=1e-9)
    files = sorted((tmp_path / "run" / "checkpoints").iterdir(), key=lambda file: read_checkpoint(file).state[:2])
    content = bytearray(files[-1].read_bytes())
    content[-100] ^= 1  # one bit of one number: the file can be read, and would go on to other weights
    files[-1].write_bytes(content)
    with pytest.warns(CheckpointWarning, match=f"{files[-1].name}: the checkpoint is damaged"):
        assert same(fitted(tmp_path / "run", resume=True, checkpoint_seconds=1e-9), whole)


def test_nothing_but_damaged_checkpoints_is_an_error(tmp_path: Path) -> None:
    fitted(tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.warns(CheckpointWarning), pytest.raises(RunError, match="all checkpoints are damaged"):
        fitted(tmp_path / "run", resume=True)


def test_other_options_are_refused(tmp_path: Path) -> None:
    fitted(tmp_path / "run")
    with pytest.raises(ArgumentError, match="begun with batch_size=16, got 20"):
        fitted(tmp_path / "run", resume=True, batch_size=20)
    with pytest.raises(ArgumentError, match="resume: expected the folder of a run"):
        probvae.fit(make(), data(), batch_size=16, resume=True)
    with pytest.raises(RunError, match="there is no run to go on with"):
        fitted(tmp_path / "nowhere", resume=True)


def test_run_in_use_is_refused(tmp_path: Path) -> None:
    fitted(tmp_path / "run")
    run = probvae.storage.run_folder.Run(tmp_path / "run")
    run.open()
    try:
        with pytest.raises(RunError, match="another process is writing this run"):
            fitted(tmp_path / "run", resume=True)
    finally:
        run.close()
    fitted(tmp_path / "run", resume=True)


def test_checkpoint_is_a_model(tmp_path: Path) -> None:
    weights, _ = fitted(tmp_path / "run")
    checkpoint = newest_checkpoint(tmp_path / "run" / "checkpoints")
    loaded = probvae.load(tmp_path / "run" / "checkpoints" / checkpoint.name)
    assert all(torch.equal(weights[name], tensor) for name, tensor in loaded.state_dict().items())


@pytest.mark.filterwarnings("ignore::probvae.errors.SkippedStepsWarning")
@pytest.mark.parametrize("compile", WAYS)
@pytest.mark.parametrize("seed", range(4))
def test_skipped_steps(seed: int, compile: str | bool, tmp_path: Path) -> None:
    """One minibatch of each epoch has no finite loss, at a place that the seed decides: it is counted once."""
    x, options = data(), {"compile": compile, "checkpoint_seconds": 1e-9, "seed": seed}
    x[33, 1] = 1e30
    whole = fitted(tmp_path / "run", x, **options)
    assert [json.loads(line)["skipped_steps"] for line in whole[1].splitlines()] == [1, 1, 1, 1]
    stopped = broken_off(tmp_path / "run", tmp_path / "stopped")
    assert same(fitted(stopped, x, resume=True, **options), whole)


def test_empty_folder_is_filled_where_it_stands(tmp_path: Path) -> None:
    """It may be a mounted one: renaming another over it would fail."""
    (tmp_path / "run").mkdir()
    before = (tmp_path / "run").stat().st_ino
    fitted(tmp_path / "run")
    assert (tmp_path / "run").stat().st_ino == before
    assert probvae.load(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_checkpoints_of_another_run_are_not_removed(tmp_path: Path) -> None:
    """A file that a user puts there stays, whatever its name; those of the run go, also after it was resumed."""
    often: dict[str, Any] = {"checkpoint_seconds": 1e-9}
    fitted(tmp_path / "run", **often)
    folder = broken_off(tmp_path / "run", tmp_path / "stopped") / "checkpoints"
    (before,) = (path.name for path in folder.iterdir())
    fitted(tmp_path / "other")
    source = next((tmp_path / "other" / "checkpoints").iterdir())
    theirs = {"epoch-000000.safetensors": source.read_bytes(), "epoch-0000001.safetensors": b"notes"}
    for name, content in theirs.items():
        (folder / name).write_bytes(content)
    (folder / "epoch-000002.safetensors").symlink_to(source)
    fitted(tmp_path / "stopped", resume=True, **often)
    left = {path.name for path in folder.iterdir()}
    assert {*theirs, "epoch-000002.safetensors"} < left
    assert len(left) == 3 + 2
    own = left - {*theirs, "epoch-000002.safetensors"}
    assert before in own
    assert len({read_checkpoint(folder / name).metadata["mark"] for name in own}) == 1
