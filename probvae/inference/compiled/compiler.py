"""Torch's compiler among other processes: a cache folder of its own, and an end when this process ends."""

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from probvae.foundation.signals import first_signal
from probvae.foundation.torch_internals import default_compiler_cache, headers_in

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


@contextmanager
def own_cache() -> Iterator[None]:
    """Inside the block inductor builds in a folder ``probvae`` of its cache, and the user's own files stay untouched.

    The parent is ``TORCHINDUCTOR_CACHE_DIR`` where it is set, and torch's default otherwise; the variable is put back.
    At the start the block removes from that folder what killed processes of this package left half built there.
    """
    variable = "TORCHINDUCTOR_CACHE_DIR"
    cache = Path(os.environ.get(variable) or default_compiler_cache(), "probvae").absolute()
    headers = cache / "precompiled_headers"
    with ExitStack() as stack:
        stack.enter_context(_environment(variable, str(cache)))
        # torch has one folder for the headers of all caches, which a killed process could leave half built as well
        stack.enter_context(headers_in(headers))
        _remove_unfinished(cache)
        _remove_unfinished(headers, nested=False)
        yield


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """The variable has this value inside the block, and the one that it had before after it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _remove_unfinished(cache: Path, nested: bool = True) -> None:
    """Remove what killed processes were building in ``cache``, unless a living one builds it now.

    Inductor takes every file that is there for a whole one; half a library ends the process that loads it.
    ``nested`` says that the files stand in folders of the cache, and not in the cache itself.
    """
    for mark in cache.glob(f"{'*/' if nested else ''}*{_UNDER_WAY}"):
        name = mark.name.removesuffix(_UNDER_WAY)
        with suppress(Timeout, OSError), FileLock(cache / "locks" / f"{name.split('.')[0]}.lock", timeout=0):
            for suffix in _BUILT:
                mark.with_name(name + suffix).unlink(missing_ok=True)
            mark.rmdir()
