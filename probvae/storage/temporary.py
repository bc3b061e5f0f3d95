"""Temporary folders with a mark of their own: nothing else in a folder of the user's is ever removed.

A temporary folder is called ``.probvae-TOKEN``, with a random token, and holds the token once more in a file of its
own, which its maker writes when it has the lock beside it. A folder that a killed process left is known by all three:
the name, the same token inside, and a lock that nobody has. No name that a user chose takes part, and a folder that
was renamed or copied is no longer one of ours.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_NAME = re.compile(r"\.probvae-([0-9a-f]{32})")
_LOCK, _TOKEN = "lock", "token"


@contextmanager
def marked_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent`` for half-written files, which is removed with all that is in it when the block ends.

    Its content becomes part of ``parent`` by a rename. Raises :class:`OSError` where it cannot be made.
    """
    token = secrets.token_hex(16)
    folder = parent / f".probvae-{token}"
    folder.mkdir(mode=0o700)
    lock = None
    try:
        with suppress(NotImplementedError):  # without locks nobody could know a killed process from a living one
            lock = acquired(folder / _LOCK)
        if lock is not None:
            (folder / _TOKEN).write_text(token, encoding="ascii")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            lock.release()


def remove_leftovers(parent: Path) -> None:
    """Remove the marked folders in ``parent`` whose maker was killed; all other folders and files stay."""
    try:
        found = [entry.name for entry in os.scandir(parent) if _NAME.fullmatch(entry.name)]
    except OSError:
        return
    for name in found:
        with suppress(OSError, UnicodeDecodeError, NotImplementedError):
            _remove_if_left(parent / name, name.removeprefix(".probvae-"))


def _remove_if_left(folder: Path, token: str) -> None:
    inside = (folder / _TOKEN, folder / _LOCK)
    if folder.is_symlink() or any(file.is_symlink() or not file.is_file() for file in inside):
        return
    with inside[0].open(encoding="ascii") as file:
        if file.read(len(token) + 1) != token:
            return
    lock = acquired(inside[1])
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def acquired(file: Path) -> Any:
    """The lock on ``file``, which ends with this process; None where another process has the lock.

    Raises :class:`OSError` where ``file`` cannot be written.
    """
    import filelock

    lock = filelock.FileLock(file, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return None
    return lock
