"""How far a fit has come, on stderr: a bar on a terminal, a line now and then in a log file."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

LINES_IN_A_LOG = 10


class EpochProgress:
    """Shows the epoch, the bound and the time left. Without ``enabled`` it does nothing."""

    def __init__(self, num_epochs: int, enabled: bool) -> None:
        self._num_epochs, self._enabled = num_epochs, enabled
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._enabled:
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, record: Mapping[str, Any]) -> None:
        """Show the epoch's ``record``."""
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=record["epoch"], text=_describe(record))
        elif self._is_due(record["epoch"]):
            self._console.print(f"epoch {record['epoch']}/{self._num_epochs}  {_describe(record)}", highlight=False)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, soft_wrap=True)
        if not self._console.is_terminal:
            return
        columns = (
            "fit",
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("fit", total=self._num_epochs, text="")
        self._bar.start()

    def _is_due(self, epoch: int) -> bool:
        every = max(1, self._num_epochs // LINES_IN_A_LOG)
        return epoch == 1 or epoch % every == 0 or epoch == self._num_epochs


def _describe(record: Mapping[str, Any]) -> str:
    text = f"ELBO {record['elbo']:.4g} nats"
    if "validation_elbo" in record:
        text += f" (validation {record['validation_elbo']:.4g})"
    return f"{text}, KL {record['kl']:.3g}"
