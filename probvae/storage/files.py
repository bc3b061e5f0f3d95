"""Files that are either whole or not there: write to a temporary name, flush, rename."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probvae.errors import RunError
from probvae.storage.temporary import marked_folder, remove_leftovers
from probvae.storage.untrusted import refuse_link

if TYPE_CHECKING:
    import numpy as np


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file, which then takes the place of ``path``.

    A link at ``path`` is replaced and not followed. The temporary file stands in a folder of ours beside ``path``, and
    has the same name. Raises :class:`~probvae.errors.RunError` when the file cannot be written; ``path`` is then as it
    was.
    """
    try:
        with marked_folder(path.parent) as folder:
            temporary = folder / path.name
            write(temporary)
            _flush_to_disk(temporary)
            temporary.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}).") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, in UTF-8."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def staged(folder: Path, *names: str) -> Iterator[Path]:
    """A new folder inside ``folder`` to write several files in; they take their places when the block has ended.

    When it ends with an error, all that was in ``folder`` is as it was. ``folder`` is made when it is not there. Raises
    :class:`~probvae.errors.RunError` where it cannot be written, or a file of one of ``names`` cannot take its place,
    at once. What a killed process left there is removed.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(_made(folder))
            remove_leftovers(folder)
            own = stack.enter_context(marked_folder(folder))
            stage = own / "new"
            stage.mkdir()
        except OSError as error:
            raise RunError(f"{folder}: cannot be written ({error.strerror}). Choose another folder.") from error
        for name in names:
            _check_place(folder, Path(name))
        yield stage
        _move_into(stage, folder, own / "old")


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """``folder`` and those above it are there inside the block; after an error, new ones that are empty go again."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for each in new:
                each.rmdir()
        raise


def _move_into(stage: Path, folder: Path, old: Path) -> None:
    """Put all files in their places, or none: ``old`` keeps what was there before, until all have moved."""
    found = [path.relative_to(stage) for path in sorted(stage.rglob("*")) if path.is_file()]
    # Obstacles that would stop the moves half way are looked for before the first move
    for place in found:
        _check_place(folder, place)
    with ExitStack() as undo:
        try:
            for place in found:
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (old / place).parent.mkdir(parents=True, exist_ok=True)
                undo.callback(_try, _way_back(folder / place, old / place))
                (stage / place).replace(folder / place)
        except OSError as error:
            raise RunError(f"{folder}: cannot be written ({error.strerror or error}).") from error
        undo.pop_all()


def _check_place(folder: Path, place: Path) -> None:
    """Raise where no file can stand at ``place`` in ``folder``."""
    target = folder / place
    for parent in place.parents[:-1]:
        refuse_link(folder / parent)
    if target.is_dir() or any(parent.is_file() for parent in target.parents):
        raise RunError(f"{target}: a file and a folder have this name. Remove what is there.")


def _way_back(file: Path, copy: Path) -> Callable[[], object]:
    """A function that gives ``file`` the content that it has now, which ``copy`` holds meanwhile."""
    if not os.path.lexists(file):
        return lambda: file.unlink(missing_ok=True)
    try:
        os.link(file, copy, follow_symlinks=False)
    except (OSError, NotImplementedError):  # no file has two names in this file system
        return lambda: None
    return lambda: copy.replace(file)


def _try(act: Callable[[], object]) -> None:
    with suppress(OSError):
        act()


def write_arrays(path: Path, arrays: "Mapping[str, np.ndarray]") -> Path:
    """Write named arrays to a compressed ``.npz`` atomically, and return ``path``."""
    import numpy as np

    write_atomic(path, lambda temporary: np.savez_compressed(temporary, **dict[str, Any](arrays)))
    return path


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
