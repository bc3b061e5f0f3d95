"""Python runs this file at its start where this folder is on the path: a process then ends at a step of its writing.

``PROBVAE_FAULT`` names the step, as in ``checkpoint-old:3:kill``. The third time that the process comes there, it is
killed as by a power cut (``kill``), or gets the operating system's error of a full disk (``full``). Processes that it
starts inherit both variables.
"""

import errno
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

_passed: Counter[str] = Counter()


def _pass(name: str) -> None:
    place, number, what = os.environ["PROBVAE_FAULT"].split(":")
    _passed[name] += 1
    if place != name or _passed[name] != int(number):
        return
    if what == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.kill(os.getpid(), signal.SIGKILL)


class _Appended:
    """A file that is open for appending: the metrics."""

    def __init__(self, stream: IO[Any]) -> None:
        self.stream = stream

    def __enter__(self) -> IO[Any]:
        _pass("metrics-opened")
        return self.stream

    def __exit__(self, *error: object) -> None:
        self.stream.close()
        if error[0] is None:
            _pass("metrics-appended")


def _patch() -> None:
    from probvae.storage import files

    write_atomic, opened, replaced, removed = files.write_atomic, Path.open, Path.replace, Path.unlink

    def writing(path: Path, write: Callable[[Path], object]) -> None:
        def stepwise(temporary: Path) -> None:
            _pass("file-opened")
            write(temporary)
            _pass("file-written")

        write_atomic(path, stepwise)

    def opening(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        stream = opened(self, mode, *arguments, **options)
        return _Appended(stream) if self.name == "metrics.jsonl" and mode == "a" else stream

    def replacing(self: Path, target: Path) -> Path:
        if self.is_dir():
            _pass("run-filled")
            return replaced(self, target)
        _pass("file-flushed")
        path = replaced(self, target)
        _pass("file-renamed")
        return path

    def removing(self: Path, missing_ok: bool = False) -> None:
        if self.parent.name == "checkpoints" and not self.name.startswith("."):
            _pass("checkpoint-old")
        removed(self, missing_ok)

    files.write_atomic = writing
    Path.open, Path.replace, Path.unlink = opening, replacing, removing  # type: ignore[method-assign,assignment]


if "PROBVAE_FAULT" in os.environ:
    _patch()
