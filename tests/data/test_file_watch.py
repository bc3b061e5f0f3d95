"""A file that changes while it is read: said with its name, and nothing that was learned from it is kept."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import probvae
from probvae.data import RowsOnDisk
from probvae.data.file_watch import FileWatch
from probvae.errors import ChangedDataError, DataError, FitError
from probvae.inference import DiagonalGuide, MLPEncoder
from probvae.models import GaussianLikelihood, LatentModel, MLPDecoder, StandardNormalPrior
from tests.support.command_line import run_process
from tests.support.launching import environment

DIM = 5


def values(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, DIM)).astype("float32")


def overwrite(file: Path) -> None:
    """Other values in the place of the old, as a program does that saves again."""
    shape = np.load(file, mmap_mode="r").shape
    np.save(file, values(shape[0], seed=1))


def overwrite_and_set_back_the_clock(file: Path) -> None:
    found = file.stat()
    overwrite(file)
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def change_one_value(file: Path) -> None:
    mapped = np.load(file, mmap_mode="r+")
    mapped[len(mapped) // 3, 1] += 1
    mapped.flush()


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def grow(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"more")


def replace(file: Path) -> None:
    np.save(file.with_name("new.npy"), values(np.load(file, mmap_mode="r").shape[0], seed=2))
    file.with_name("new.npy").replace(file)


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "overwritten": (overwrite, "its time is another one"),
    "overwritten, with the old time": (overwrite_and_set_back_the_clock, "its values are other ones"),
    "one value": (change_one_value, "its time is another one"),
    "truncated": (truncate, "its size is another one"),
    "longer": (grow, "its size is another one"),
    "replaced": (replace, "another one"),
    "removed": (Path.unlink, "No such file or directory"),
    "touched": (Path.touch, "its time is another one"),
}
change = pytest.mark.parametrize("name", CHANGES)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", values(3000))
    os.utime(tmp_path / "x.npy", ns=(1, 1))  # no clock is so coarse
    return tmp_path / "x.npy"


@change
def test_each_change_is_seen(name: str, file: Path) -> None:
    act, reason = CHANGES[name]
    watch = FileWatch(file)
    watch.check()
    act(file)
    with pytest.raises(ChangedDataError, match=reason) as caught:
        watch.check()
    assert str(file) in str(caught.value)
    assert isinstance(caught.value, DataError)
    assert isinstance(caught.value, FitError)


@pytest.mark.parametrize("rows", [slice(2000, 2900), np.array([2900, 1, 2800])], ids=["slice", "scattered"])
def test_what_a_file_has_lost_is_not_read(rows: slice | np.ndarray, file: Path) -> None:
    x = RowsOnDisk(np.load(file, mmap_mode="r")).take(slice(None)).then(np.negative)
    assert len(x[rows])
    truncate(file)
    with pytest.raises(ChangedDataError, match="its size is another one"):
        x[rows]


def sabotaged(act: Callable[[], object], step: int) -> MLPDecoder:
    """A decoder that does something at its n-th step of training."""
    steps = count(1)

    def hook(module: nn.Module, arguments: object) -> None:
        if module.training and next(steps) == step:
            act()

    decoder = MLPDecoder(2, DIM, hidden=(6,))
    decoder.register_forward_pre_hook(hook)
    return decoder


Fitted = tuple[dict[str, Tensor], str]


def fitted(file: Path, act: Callable[[], object] = int, step: int = 0, **options: object) -> Fitted:
    """The weights that a fit leaves, whatever its end, and its message."""
    torch.manual_seed(0)
    model = LatentModel(StandardNormalPrior(2), sabotaged(act, step), GaussianLikelihood(DIM))
    vae, message = probvae.VAE(model, DiagonalGuide(MLPEncoder(DIM, hidden=(6,)), 2)), ""
    settings = {"epochs": 4, "batch_size": 300, "compile": False, "schedule": "constant", "progress": False, **options}
    try:
        probvae.fit(vae, RowsOnDisk(np.load(file, mmap_mode="r")), **settings)
    except ChangedDataError as error:
        message = str(error)
    return {name: tensor.clone() for name, tensor in vae.state_dict().items()}, message


@change
def test_the_weights_before_the_change_are_kept(name: str, file: Path) -> None:
    """Ten steps an epoch: the change comes in the third."""
    expected, message = fitted(file, epochs=2)
    assert message == ""
    found, message = fitted(file, lambda: CHANGES[name][0](file), step=24)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert message.startswith(f"{file}: the file has changed since the data were read first (")
    assert message.endswith("The weights are those after epoch 2.")


def test_validation_data_are_watched_too(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.npy"
    np.save(other, values(500, seed=3))
    os.utime(other, ns=(1, 1))
    validation = RowsOnDisk(np.load(other, mmap_mode="r"))
    expected, message = fitted(file, epochs=2, validation=validation)
    assert message == ""
    found, message = fitted(file, lambda: overwrite(other), 24, validation=validation)
    assert message.startswith(f"{other}: the file has changed")
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_checkpoint_within_an_epoch_has_seen_no_changed_data(file: Path, tmp_path: Path) -> None:
    """It is saved after every step: the last is the step before the change."""
    fitted(file, lambda: overwrite(file), step=24, out=tmp_path / "run", checkpoint_seconds=1e-9)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names[-1] == "epoch-000002-batch-000003.safetensors"


FIT = (
    *("fit", "--data", "x.npy", "--set", "data.in_memory_limit=0.01", "--batch-size", "100", "--hidden", "8"),
    *("--no-gap", "--no-figures", "--no-progress", "--compile", "no", "--out", "run", "--checkpoint-seconds", "0.2"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["overwritten", "one value", "truncated", "removed"])
def test_a_fit_on_the_command_line(name: str, file: Path, tmp_path: Path) -> None:
    """A real file, a real fit: exit code 1, the file's name, no summary; with the file restored the fit goes on."""
    before = file.read_bytes()
    command = [sys.executable, "-m", "probvae", *FIT, "--epochs", "1000"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and len(records(tmp_path)) < 3:
            time.sleep(0.05)
        CHANGES[name][0](file)
        message = process.communicate(timeout=300)[1]
    assert process.returncode == 1, message
    assert f"probvae: {file}: the file has changed" in message
    assert "The weights are those after epoch" in message
    assert "Traceback" not in message
    assert not (tmp_path / "run" / "summary.json").exists()
    assert probvae.load(tmp_path / "run")
    file.write_bytes(before)
    again = [sys.executable, "-m", "probvae", "fit", "--resume", "run", "--no-progress"]
    known = len(records(tmp_path))
    with subprocess.Popen(again, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and len(records(tmp_path)) < known + 2:
            time.sleep(0.05)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)


def records(folder: Path) -> list[str]:
    file = folder / "run" / "metrics.jsonl"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.slow
def test_a_file_that_stays_as_it_is(file: Path, tmp_path: Path) -> None:
    done = run_process(*FIT, "--epochs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").exists()
