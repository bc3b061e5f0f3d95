"""The one door for files that somebody else may have made: each is checked before it is read or written over.

A file is a regular file of a sensible size. A run's files lie inside its folder and are no links, whatever a link
points at, and their format is one that this version knows. JSON in them is an object, numbers in them are finite.
"""

import json
import math
import stat
from pathlib import Path
from typing import Any

from probvae.errors import ProbvaeError, RunError

# The format of run folders and model files that this version writes; a folder without a number is of format 0
FORMAT = 1
# Bytes of a text file: the metrics of a million epochs take less
_LARGEST_TEXT = 2**28
_UNFINISHED = "Was the fit stopped before its end? Then go on with: probvae fit --resume RUN"


def check_file(
    path: Path, fix: str, largest: int | None = None, name: str | None = None, error: type[ProbvaeError] = RunError
) -> None:
    """Raise ``error`` unless ``path`` is a regular file of at most ``largest`` bytes, before a byte of it is read.

    To open a pipe may wait for ever, and a device may have no end. A message begins with ``name`` (by default the path)
    and ends with ``fix``. Raises :class:`OSError` where there is nothing.

    >>> check_file(Path("/"), "Give a TOML file.")
    Traceback (most recent call last):
    probvae.errors.RunError: /: expected a file, got a folder. Give a TOML file.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = "folder" if stat.S_ISDIR(found.st_mode) else "pipe or device"
        raise error(f"{name or path}: expected a file, got a {kind}. {fix}")
    if largest is not None and found.st_size > largest:
        raise error(f"{name or path}: expected at most {largest >> 20} MB of text. {fix}")


def refuse_link(path: Path) -> None:
    """Raise :class:`~probvae.errors.RunError` where ``path`` is a link: a file written there would land elsewhere."""
    if path.is_symlink():
        raise RunError(f"{path}: is a link, which may lead outside of its folder. Remove it, or choose another folder.")


def run_file(run: Path, name: str) -> Path:
    """The file ``name`` of a run.

    Raises :class:`~probvae.errors.RunError` where it is missing, a link, or no regular file.
    """
    file = run / name
    if file.is_symlink():
        raise RunError(f"{run}: {name} is a link, and a run holds its own files only. Put the file itself there.")
    if not file.exists():
        raise RunError(f"{run}: there is no {name} in it. Give a folder that `probvae fit` wrote. {_UNFINISHED}")
    if not file.is_file():
        raise RunError(f"{run}: {name} is no regular file. Give a folder that `probvae fit` wrote.")
    return file


def read_run_text(run: Path, name: str) -> str:
    """The text of a run's file ``name``; raises :class:`~probvae.errors.RunError` as :func:`run_file` does."""
    file = run_file(run, name)
    try:
        if file.stat().st_size > _LARGEST_TEXT:
            raise RunError(f"{run}: {name} is larger than any fit writes it. Give a run that is whole.")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{run}: {name} cannot be read ({error}). Restore it, or fit it again.") from error


def read_run_json(run: Path, name: str) -> dict[str, Any]:
    """The JSON object in a run's file ``name``."""
    return parse_object(read_run_text(run, name), f"{run}: {name}")


def parse_object(text: str, place: str) -> dict[str, Any]:
    """A JSON object; raises :class:`~probvae.errors.RunError`, which names ``place``, for anything else."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{place} cannot be read ({error}). {_UNFINISHED}") from error
    if not isinstance(content, dict):
        raise RunError(f"{place}: expected a JSON object, got {type(content).__name__}. Restore it, or fit it again.")
    return content


def number_or_none(value: object) -> float | None:
    """``value`` if it is a finite number, else None: a damaged file may hold anything.

    >>> number_or_none(2.5), number_or_none(float("nan")), number_or_none("2.5"), number_or_none(True)
    (2.5, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # `value` is an integer of thousands of digits
        return None


def check_run_format(run: Path) -> None:
    """Raise :class:`~probvae.errors.RunError` for a run of a format that this version cannot read.

    A folder without ``environment.json`` passes: code that needs the file says so itself.
    """
    if not (run / "environment.json").exists() and not (run / "environment.json").is_symlink():
        return
    environment = read_run_json(run, "environment.json")
    versions = environment.get("versions")
    writer = versions.get("probvae") if isinstance(versions, dict) else None
    check_format(environment.get("format", 0), writer, run)


def check_format(number: object, writer: object, place: Path) -> None:
    """Raise :class:`~probvae.errors.RunError` unless this version reads the format ``number``.

    ``writer`` is the version of probvae that wrote ``place``, as far as that is known.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise RunError(f"{place}: expected the number of a format, got {number!r}. Restore the run, or fit it again.")
    if number > FORMAT:
        raise RunError(
            f"{place}: was written in format {number} by probvae {writer or '(not known)'}; this version "
            f"reads formats up to {FORMAT}. Update probvae."
        )
