"""A fit's state on disk, with a checksum: when it is written, and how a fit that was stopped goes on from it."""

import json
import re
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self

from probvae.errors import ArgumentError, CheckpointWarning, FitInterruptedError, RunError
from probvae.foundation.signals import noticed_signals
from probvae.inference.compiled.choose_step import current_name
from probvae.inference.model_file import TRAINING
from probvae.inference.training.state import FitState, SavedState, StateListener
from probvae.storage.run_folder import Run
from probvae.storage.tensor_files import Packed, pack, read_tensors, write_packed
from probvae.storage.untrusted import parse_object, run_file

NUM_KEPT = 2
# The key of a random text that all checkpoints of one run have: those of another run, or the user's, are not removed
_MARK = "mark"
# The version of the checkpoint format, separate from the run format: runs are read for years, checkpoints for days
_FORMAT = 2
_NAME = re.compile(r"epoch-(\d{6,})(?:-batch-(\d{6,}))?\.safetensors")


class Checkpoint(NamedTuple):
    """A saved ``state``, and the text of a model file in ``metadata``, with a description of the fit under "fit"."""

    state: SavedState
    metadata: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name of its file."""
        batch = f"-batch-{self.state.batch:06d}" if self.state.batch else ""
        return f"epoch-{self.state.epoch:06d}{batch}.safetensors"

    def packed(self) -> tuple[Packed, dict[str, str]]:
        """A copy of all its tensors and text, whatever the fit does after it."""
        tensors = {**self.state.weights, **{TRAINING + name: part for name, part in self.state.tensors.items()}}
        return pack(tensors), {**self.metadata, "training": json.dumps(self.state.scalars)}


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write it into ``folder`` and keep the newest two of its run there.

    The file is one that a model can be loaded from. Raises :class:`~probvae.errors.RunError` where it cannot be
    written; the checkpoints before it are then as they were.
    """
    _write(folder, checkpoint.name, *checkpoint.packed())


def _write(folder: Path, name: str, tensors: Packed, metadata: dict[str, str]) -> None:
    write_packed(folder / name, tensors, {**metadata, "sha256": tensors.digest(metadata)})
    try:
        ours = [file for file in _newest_first(folder) if _mark_of(file) == metadata.get(_MARK)]
        for file in ours[NUM_KEPT:]:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: an old checkpoint cannot be removed ({error.strerror or error}).") from error


def _mark_of(file: Path) -> str | None:
    """The mark of the fit that wrote a checkpoint; the empty text where the file cannot be read, or is a link."""
    from safetensors import SafetensorError, safe_open

    if file.is_symlink():
        return ""
    try:
        with safe_open(file, framework="pt") as opened:
            return (opened.metadata() or {}).get(_MARK)
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, AttributeError):
        return ""


def read_checkpoint(file: Path) -> Checkpoint:
    """Read what :func:`write_checkpoint` wrote; raises :class:`~probvae.errors.RunError` where it is damaged."""
    tensors, metadata = read_tensors(run_file(file.parent, file.name))
    known = metadata.pop("sha256", None)
    match = _NAME.fullmatch(file.name)
    if match is None or known is None or known != pack(tensors).digest(metadata):
        raise RunError(f"{file}: the checkpoint is damaged, its checksum is another one.")
    scalars = parse_object(metadata.pop("training", ""), str(file))
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(TRAINING)}
    others = {name.removeprefix(TRAINING): part for name, part in tensors.items() if name.startswith(TRAINING)}
    return Checkpoint(SavedState(int(match[1]), int(match[2] or 0), weights, others, scalars), metadata)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in ``folder`` that is whole; None where there is no checkpoint yet.

    A damaged checkpoint is told by a :class:`~probvae.errors.CheckpointWarning`, and the next older is taken. Raises
    :class:`~probvae.errors.RunError` where all are damaged.
    """
    files = _newest_first(folder)
    for file in files:
        try:
            return read_checkpoint(file)
        except RunError as error:
            warnings.warn(f"{error} The one before it is taken.", CheckpointWarning, stacklevel=2)
    if files:
        raise RunError(f"{folder}: all checkpoints are damaged. Begin the fit anew, in another folder.")
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
        self._waiting: tuple[str, Packed, dict[str, str]] | None = None
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
        now = (checkpoint.name, *checkpoint.packed())
        with self._lock:
            self._waiting = now
        self._tasks.append(self._worker.submit(self._write_waiting))

    def finish(self) -> None:
        """Return when the last one is on disk; raises what its write raised."""
        wait(self._tasks)
        self._raise_failures()

    def _write_waiting(self) -> None:
        with self._lock:
            checkpoint, self._waiting = self._waiting, None
        if checkpoint is not None:
            _write(self.folder, *checkpoint)

    def _raise_failures(self) -> None:
        done = [task for task in self._tasks if task.done()]
        self._tasks = [task for task in self._tasks if task not in done]
        for task in done:
            task.result()


class Resumption(StateListener):
    """Puts the state of a fit where ``checkpoint`` was taken, before the first step.

    ``description`` is what has to be the same in the fit that was stopped, as plain data.
    """

    def __init__(self, checkpoint: Checkpoint | None, description: Mapping[str, Any]) -> None:
        self.checkpoint = checkpoint
        self.description: dict[str, Any] = json.loads(json.dumps(description, default=str))

    def begin(self, state: FitState, reason: str) -> None:
        if self.checkpoint is None:
            return
        saved, name = self.checkpoint.state, self.checkpoint.name
        if saved.scalars.get("format") != _FORMAT:
            raise RunError(
                f"checkpoint {name}: expected format {_FORMAT}, got {saved.scalars.get('format')}: another version of "
                "probvae wrote it. Resume the fit with that version, or fit anew."
            )
        _check_same(parse_object(self.checkpoint.metadata.get("fit", ""), f"checkpoint {name}"), self.description)
        try:
            state.load_state_dict(saved)
        except RunError as error:
            raise RunError(
                f"checkpoint {name}: holds something else than the state of this fit ({error}). Resume with the "
                "version of probvae and the recipe that wrote it, or fit anew in another folder."
            ) from error
        if (path := current_name(saved.scalars["path"])) != state.path:
            warnings.warn(
                f"resume: the steps so far took the {path} path, here it is {state.path} ({reason}): "
                "the numbers may differ in their last digits.",
                CheckpointWarning,
                stacklevel=6,
            )


class RunRecorder(Resumption):
    """Writes a fit into its ``run`` folder: a record and a checkpoint for every epoch, and the weights at the end.

    Within an epoch a checkpoint is written every ``seconds``. ``metadata`` is the text of a model file. With ``resume``
    the folder is there already. ``check`` is called before each checkpoint, and raises where its state is not to be
    kept. Raises :class:`~probvae.errors.FitInterruptedError` after SIGINT or SIGTERM, when all
    is on disk. As a context manager it hears signals from :meth:`begin` to the end of its block.
    """

    def __init__(
        self,
        run: Run,
        metadata: Mapping[str, str],
        description: Mapping[str, Any],
        seconds: float,
        resume: bool = False,
        checkpoint: Checkpoint | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(checkpoint, description)
        self.check = check
        self.run, self.seconds, self.resume = run, seconds, resume
        # the text is made once, and not at every checkpoint
        known = None if checkpoint is None else checkpoint.metadata.get(_MARK)
        mark = {_MARK: known or secrets.token_hex(16)}
        self.metadata = {**metadata, **mark, "fit": json.dumps(self.description)}
        self.last = time.monotonic()
        self._open = ExitStack()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if error is None and self.interruption.signal:
            # It came while the weights were written, too late for end() to hear of it.
            raise self._interrupted(self.num_epochs, 0)

    def begin(self, state: FitState, reason: str) -> None:
        """Make the folder, or go on in it; a record after the checkpoint belongs to a future that is not."""
        if not self.resume:
            self.run.add_to_environment({"path": state.path, "path_reason": reason})
            self.run.create()
        self.interruption = self._open.enter_context(noticed_signals())
        # the run may have taken another name than it was to have
        self._writer = self._open.enter_context(CheckpointWriter(self.run.checkpoints))
        super().begin(state, reason)
        self.run.write_text("metrics.jsonl", "".join(line + "\n" for line in state.lines))

    def after_epoch(self, state: FitState) -> None:
        self.run.append_metrics(state.lines[-1])
        self._save(state)

    def after_step(self, state: FitState) -> None:
        if self.interruption.signal or time.monotonic() - self.last > self.seconds:
            self._save(state)

    def end(self, state: FitState) -> None:
        """Save the weights; a signal that came after the last epoch was saved is heard too."""
        self.num_epochs = state.epoch
        if self.interruption.signal:
            self._stop(state.epoch, 0)
        self._writer.finish()
        state.vae.save(self.run.model_file)

    def _save(self, state: FitState) -> None:
        self.check()
        saved = state.state_dict()
        self._writer.put(Checkpoint(saved._replace(scalars={**saved.scalars, "format": _FORMAT}), self.metadata))
        self.last = time.monotonic()
        if self.interruption.signal:
            self._stop(saved.epoch, saved.batch)

    def _stop(self, epoch: int, batch: int) -> NoReturn:
        self._writer.finish()
        raise self._interrupted(epoch, batch)

    def _interrupted(self, epoch: int, batch: int) -> FitInterruptedError:
        assert self.interruption.signal is not None
        where = f"epoch {epoch}" + (f" and batch {batch} of the next" if batch else "")
        return FitInterruptedError(
            f"interrupted after {where}; all until then is saved. Go on with: probvae fit --resume {self.run.folder}",
            self.interruption.signal,
        )


def _check_same(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in then.keys() | now.keys():
        if then.get(name) != now.get(name):
            raise ArgumentError(
                f"resume: the run was begun with {name}={then.get(name)!r}, got {now.get(name)!r}. A run goes on with "
                "the options that it was begun with; leave out resume to fit anew."
            )
