"""Files that are either whole or not there: write to a temporary name, flush, rename."""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probvae.errors import RunError

if TYPE_CHECKING:
    import numpy as np


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it over ``path``.

    Raises :class:`~probvae.errors.RunError` when the file cannot be written; ``path`` is then as it was.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        _make_readable(temporary)
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


def write_arrays(path: Path, arrays: "Mapping[str, np.ndarray]") -> Path:
    """Write named arrays to a compressed ``.npz`` atomically, and say where."""
    import numpy as np

    write_atomic(path, lambda temporary: np.savez_compressed(temporary, **dict[str, Any](arrays)))
    return path


def _make_readable(path: Path) -> None:
    # mkstemp makes files only their owner can read; a run folder follows the user's umask instead.
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
