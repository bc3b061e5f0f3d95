"""When a fit's state goes to disk: after every epoch, every so many seconds, and when a signal has come."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from probvae.errors import FitInterruptedError
from probvae.foundation.signals import Interruption, noticed_signals
from probvae.inference.training.checkpoints import Checkpoint, CheckpointWriter
from probvae.inference.training.resuming import checkpoint_of, constant_part, restore
from probvae.storage.run_folder import Run

if TYPE_CHECKING:
    from probvae.inference.training.loop import Trainer


class Saver:
    """Saves nothing: a fit without a run folder."""

    def after_epoch(self, trainer: "Trainer") -> None:
        """An epoch is done, and on record."""

    def after_step(self, trainer: "Trainer", batch: int) -> None:
        """So many minibatches of an epoch are done, and others are to come."""


class RunSaver(Saver):
    """Saves into a run folder; ``seconds`` is the longest time between two checkpoints within an epoch.

    Raises :class:`~probvae.errors.FitInterruptedError` after a signal, when all is on disk.
    """

    def __init__(self, run: Run, writer: CheckpointWriter, interruption: Interruption, seconds: float) -> None:
        self.run, self.writer, self.interruption, self.seconds = run, writer, interruption, seconds
        self.lines: list[str] = []
        self.constant: dict[str, str] = {}
        self.last = time.monotonic()

    def begin(self, trainer: "Trainer", checkpoint: Checkpoint | None) -> None:
        """Put ``trainer`` where the checkpoint was taken; a record after it belongs to a future that is not."""
        if checkpoint is not None:
            restore(trainer, checkpoint)
        self.constant = constant_part(trainer)
        self.lines = [_line(record) for record in trainer.result.history]
        self.run.write_text("metrics.jsonl", "".join(line + "\n" for line in self.lines))

    def after_epoch(self, trainer: "Trainer") -> None:
        self.lines.append(_line(trainer.result.history[-1]))
        self.run.append_metrics(self.lines[-1])
        self._save(trainer, 0)

    def after_step(self, trainer: "Trainer", batch: int) -> None:
        if self.interruption.signal or time.monotonic() - self.last > self.seconds:
            self._save(trainer, batch)

    def end(self, trainer: "Trainer") -> None:
        """All epochs are done; a signal that came after the last one was saved is heard too."""
        if self.interruption.signal:
            self._stop(trainer.epoch, 0)

    def _save(self, trainer: "Trainer", batch: int) -> None:
        self.writer.put(checkpoint_of(trainer, batch, self.lines, self.constant))
        self.last = time.monotonic()
        if self.interruption.signal:
            self._stop(trainer.epoch, batch)

    def _stop(self, epoch: int, batch: int) -> NoReturn:
        assert self.interruption.signal is not None
        self.writer.finish()
        where = f"epoch {epoch}" + (f" and batch {batch} of the next" if batch else "")
        raise FitInterruptedError(
            f"interrupted after {where}; all until then is saved. Go on with: probvae fit --resume {self.run.folder}",
            self.interruption.signal,
        )


@contextmanager
def saving(run: Run | None, trainer: "Trainer", checkpoint: Checkpoint | None, seconds: float) -> Iterator[Saver]:
    """What saves into ``run`` inside the block; all is on disk when it has ended."""
    if run is None:
        if checkpoint is not None:
            restore(trainer, checkpoint)  # one of several processes, of which another one writes
        yield Saver()
        return
    with noticed_signals() as interruption, CheckpointWriter(run.checkpoints) as writer:
        saver = RunSaver(run, writer, interruption, seconds)
        saver.begin(trainer, checkpoint)
        yield saver
        saver.end(trainer)


def _line(record: dict[str, object]) -> str:
    """Without the time, which is another in every run."""
    return json.dumps({name: value for name, value in record.items() if name != "seconds"}, allow_nan=False)
