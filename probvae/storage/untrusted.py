"""The one door for files that somebody else may have made: each is checked before it is read or written over.

A file is a regular file of a sensible size. A run's files lie inside its folder and are no links, whatever a link
points at, and their format is one that this version knows. JSON in them is an object, tensors in them are finite, and
the components that they describe are no larger than their weights call for.
"""

import json
import math
import stat
import tomllib
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probvae.errors import ConfigError, ProbvaeError, RunError

if TYPE_CHECKING:
    from torch import Tensor

# The format of run folders and model files that this version writes; a folder without a number is of format 0
FORMAT = 2
# Bytes of a text file: the metrics of a million epochs take less
_LARGEST_TEXT = 2**28
# Characters of a description: thousands of columns have fewer
_LONGEST_DESCRIPTION = 2**22
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


def read_description(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The description of components in the text ``metadata`` of the model file ``path``; none is built.

    Raises :class:`~probvae.errors.RunError` for a file of another program or a later version, and for a description
    that is damaged or longer than any.
    """
    number, text = metadata.get("format", ""), metadata.get("components")
    if text is None or not number.isdecimal():
        raise RunError(f"{path}: expected a probvae model of format {FORMAT}, got {number!r}. Give the file of a run.")
    check_format(int(number[:9]), metadata.get("probvae"), path)
    if len(text) > _LONGEST_DESCRIPTION:
        raise RunError(f"{path}: the description of its components is longer than any. Give the file of a run.")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: the description of its components is damaged ({error}).") from error


@contextmanager
def bounded_build(path: Path, weights: "Mapping[str, Tensor]") -> Iterator[None]:
    """Build the components that the file ``path`` describes inside the block: no larger than its weights call for.

    ``weights`` are tensors of any shapes. Raises :class:`~probvae.errors.RunError` where the description is damaged;
    the caller's random numbers are left as they were.
    """
    from probvae.foundation.operators import BoundedAllocation
    from probvae.foundation.seed import isolated_seed

    num_elements = sum(tensor.numel() for tensor in weights.values())
    # The package's own components allocate a tenth of these bounds while they are built
    bounds = BoundedAllocation(2**22 + 40 * num_elements, 2_000 + 100 * len(weights))
    try:
        with isolated_seed(0), bounds:
            yield
    except ConfigError:
        raise
    except Exception as error:  # arguments that no component was made for may fail anywhere in its constructor
        reason = str(error) if isinstance(error, ProbvaeError) else f"{type(error).__name__}: {error}"
        raise RunError(f"{path}: the description of its components is damaged ({reason}).") from error


def check_finite_tensors(path: Path, tensors: "Mapping[str, Tensor]", may_have_nan: Container[str] = ()) -> None:
    """Raise for tensors (any shapes) of ``path`` with entries that are not finite, NaN in ``may_have_nan`` apart."""
    for name, tensor in tensors.items():
        bad = tensor.isinf() if name in may_have_nan else ~tensor.isfinite()
        if bad.any():
            raise RunError(f"{path}: {name} has entries that are not finite. Fit again, or take a checkpoint.")
