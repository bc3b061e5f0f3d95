"""Files that are either whole or not there: write to a temporary name, flush, rename."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probvae.errors import RunError
from probvae.storage.untrusted import refuse_link

if TYPE_CHECKING:
    import numpy as np


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it over ``path``.

    A link at ``path`` is replaced and not followed.
    Raises :class:`~probvae.errors.RunError` when the file cannot be written; ``path`` is then as it was.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        make_readable(temporary)
        _flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, in UTF-8."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder inside ``folder`` to write several files in; they take their places when the block has ended.

    When it ends with an error, all that was in ``folder`` is as it was. ``folder`` is made when it is not there. Raises
    :class:`~probvae.errors.RunError` where it cannot be written, at once.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=folder, prefix=".writing-"))
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}). Choose another folder.") from error
    try:
        yield stage
        _move_into(stage, folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _move_into(stage: Path, folder: Path) -> None:
    found = [path.relative_to(stage) for path in sorted(stage.rglob("*")) if path.is_file()]
    # Obstacles that would stop the moves half way are looked for before the first move
    for place in found:
        target = folder / place
        for parent in place.parents[:-1]:
            refuse_link(folder / parent)
        if target.is_dir() or any(parent.is_file() for parent in target.parents):
            raise RunError(f"{target}: a file and a folder have this name. Remove what is there.")
    try:
        for place in found:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (stage / place).replace(folder / place)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror or error}).") from error


def write_arrays(path: Path, arrays: "Mapping[str, np.ndarray]") -> Path:
    """Write named arrays to a compressed ``.npz`` atomically, and return ``path``."""
    import numpy as np

    write_atomic(path, lambda temporary: np.savez_compressed(temporary, **dict[str, Any](arrays)))
    return path


def make_readable(path: Path) -> None:
    """Give a file or folder that ``tempfile`` made, readable by its owner only, the rights of the user's umask."""
    path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())


@cache
def _umask() -> int:
    # The umask can be read only by setting it for all threads, so it is read once
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
