"""Torch's compiler among other processes: it ends with this one, and what a killed one left half done is removed."""

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from probvae.foundation.signals import first_signal

# Inductor makes this folder beside a file that it builds, while it builds it
_UNDER_WAY = "_CxxBuild"
_BUILT = (".so", ".o", ".gch")


def ended_by_signals() -> AbstractContextManager[None]:
    """Processes that begin inside the block end when SIGINT or SIGTERM comes there, before it does what it did before.

    A compiler would go on for seconds otherwise. Known on systems that list a process's children (Linux).
    """
    known = set(_descendants(os.getpid()))

    def end(number: signal.Signals) -> None:
        for child in set(_descendants(os.getpid())) - known:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        signal.raise_signal(number)

    return first_signal(end)


def _descendants(process: int) -> Iterator[int]:
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # it may have ended meanwhile
            for child in map(int, file.read_text().split()):
                yield child
                yield from _descendants(child)


def remove_unfinished(cache: Path, nested: bool = True) -> None:
    """Remove what killed processes were building in inductor's ``cache``, unless a living one builds it now.

    Inductor takes every file that is there for a whole one; half a library ends the process that loads it.
    ``nested``: the files are in folders of the cache, and not in the cache itself.
    """
    for mark in cache.glob(f"{'*/' if nested else ''}*{_UNDER_WAY}"):
        name = mark.name.removesuffix(_UNDER_WAY)
        with suppress(Timeout, OSError), FileLock(cache / "locks" / f"{name.split('.')[0]}.lock", timeout=0):
            for suffix in _BUILT:
                mark.with_name(name + suffix).unlink(missing_ok=True)
            mark.rmdir()
