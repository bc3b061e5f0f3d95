"""All that a fit's next step depends on, on disk with a checksum."""

import json
import re
import threading
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from torch import Tensor

from probvae.errors import CheckpointWarning, RunError
from probvae.foundation.fault_points import fault_point
from probvae.inference.model_file import TRAINING
from probvae.storage.tensor_files import Packed, pack, read_tensors, write_packed
from probvae.storage.untrusted import parse_object, run_file

NUM_KEPT = 2
_NAME = re.compile(r"epoch-(\d{6,})(?:-batch-(\d{6,}))?\.safetensors")


class Checkpoint(NamedTuple):
    """The state after ``epoch`` epochs and ``batch`` minibatches of the next.

    ``weights`` and what else a model file has in ``metadata``, the ``tensors`` of optimiser, order and random
    generators by name, and the ``numbers`` that JSON can hold. The tensors may be those that the fit works on.
    """

    epoch: int
    batch: int
    weights: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of its file."""
        return f"epoch-{self.epoch:06d}" + (f"-batch-{self.batch:06d}" if self.batch else "") + ".safetensors"


class PackedCheckpoint(NamedTuple):
    """A checkpoint as it was, whatever the fit does after it."""

    name: str
    tensors: Packed
    metadata: dict[str, str]


def packed(checkpoint: Checkpoint) -> PackedCheckpoint:
    """A copy of all its numbers."""
    tensors = {**checkpoint.weights, **{TRAINING + name: part for name, part in checkpoint.tensors.items()}}
    metadata = {**checkpoint.metadata, "training": json.dumps(checkpoint.numbers)}
    return PackedCheckpoint(checkpoint.name, pack(tensors), metadata)


def write_checkpoint(folder: Path, checkpoint: PackedCheckpoint) -> None:
    """Write it into ``folder`` and keep the newest two there.

    The file is one that a model can be loaded from. Raises :class:`~probvae.errors.RunError` where it cannot be
    written; the checkpoints before it are then as they were.
    """
    name, tensors, metadata = checkpoint
    write_packed(folder / name, tensors, {**metadata, "sha256": tensors.digest(metadata)})
    try:
        for file in _newest_first(folder)[NUM_KEPT:]:
            fault_point("checkpoint-old")
            file.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: an old checkpoint cannot be removed ({error.strerror or error}).") from error


def read_checkpoint(file: Path) -> Checkpoint:
    """What :func:`write_checkpoint` wrote; raises :class:`~probvae.errors.RunError` where it is damaged."""
    tensors, metadata = read_tensors(run_file(file.parent, file.name))
    known = metadata.pop("sha256", None)
    match = _NAME.fullmatch(file.name)
    if match is None or known is None or known != pack(tensors).digest(metadata):
        raise RunError(f"{file}: the checkpoint is damaged, its checksum is another one.")
    numbers = parse_object(metadata.pop("training", ""), str(file))
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(TRAINING)}
    others = {name.removeprefix(TRAINING): part for name, part in tensors.items() if name.startswith(TRAINING)}
    return Checkpoint(int(match[1]), int(match[2] or 0), weights, metadata, others, numbers)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole one; None where there is none yet.

    A damaged one is told by a :class:`~probvae.errors.CheckpointWarning`, and the one before it is taken. Raises
    :class:`~probvae.errors.RunError` where all are damaged.
    """
    files = _newest_first(folder)
    for file in files:
        try:
            return read_checkpoint(file)
        except RunError as error:
            warnings.warn(f"{error} The one before it is taken.", CheckpointWarning, stacklevel=2)
    if files:
        raise RunError(f"{folder}: all checkpoints are damaged. Remove them to begin the run anew.")
    return None


def _newest_first(folder: Path) -> list[Path]:
    """By epoch and batch: their names' own order is another one."""
    matches = [(match, file) for file in folder.iterdir() if (match := _NAME.fullmatch(file.name))]
    return [file for _, _, file in sorted(((int(m[1]), int(m[2] or 0), file) for m, file in matches), reverse=True)]


class CheckpointWriter:
    """Writes checkpoints in a thread, so that the fit goes on while the disk is busy.

    A checkpoint that comes while another is written waits; where one waits already, the newer takes its place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._worker = ThreadPoolExecutor(1, "probvae-checkpoint")
        self._lock = threading.Lock()
        self._waiting: PackedCheckpoint | None = None
        self._tasks: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.shutdown()
        if error is None:
            self._raise_failures()

    def put(self, checkpoint: Checkpoint) -> None:
        """Have it written as it is now; raises what a write before it raised."""
        self._raise_failures()
        now = packed(checkpoint)
        with self._lock:
            self._waiting = now
        self._tasks.append(self._worker.submit(self._write))

    def finish(self) -> None:
        """Return when the last one is on disk; raises what its write raised."""
        wait(self._tasks)
        self._raise_failures()

    def _write(self) -> None:
        with self._lock:
            checkpoint, self._waiting = self._waiting, None
        if checkpoint is not None:
            write_checkpoint(self.folder, checkpoint)

    def _raise_failures(self) -> None:
        done = [task for task in self._tasks if task.done()]
        self._tasks = [task for task in self._tasks if task not in done]
        for task in done:
            task.result()
