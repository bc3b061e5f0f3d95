"""The files of a run folder, which somebody else may have made: each is looked at before it is read.

A run's files are regular files inside the folder, of a sensible size, in a format that this version knows. Links are
refused, whatever they point at. What is written into a folder is guarded by :mod:`probvae.storage.files`.
"""

import json
import math
from pathlib import Path
from typing import Any

from probvae.errors import RunError

# The format of run folders and model files that this version writes; a folder without a number is of format 0
FORMAT = 1
# of a text file, in bytes: a run of a million epochs has less
_LARGEST_TEXT = 2**28
_UNFINISHED = "Was the fit stopped before its end? Then go on with: probvae fit --resume RUN"


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
    """A finite number as it is, and None for whatever else a damaged file may hold.

    >>> number_or_none(2.5), number_or_none(float("nan")), number_or_none("2.5"), number_or_none(True)
    (2.5, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer of thousands of digits
        return None


def check_run_format(run: Path) -> None:
    """Raise :class:`~probvae.errors.RunError` for a run of a format that this version cannot read.

    A folder without ``environment.json`` passes: what needs that file says so itself.
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
