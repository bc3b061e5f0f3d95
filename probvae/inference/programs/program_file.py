"""A model and a guide from a Python file that a user wrote."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import Tensor

from probvae.errors import ConfigError, unknown_name

_EXPECTED = "a function without arguments that returns (model, guide) or (model, guide, x), or an object that has them"


class ProgramFile(NamedTuple):
    """The two programs of a file and, where the file has them, data ``x`` (N, ...)."""

    model: Any
    guide: Any
    x: Tensor | None


def read_programs(source: str) -> ProgramFile:
    """The programs of ``source``, ``FILE.py:NAME``; the file is run.

    NAME is a function without arguments that returns (model, guide) or (model, guide, x), such a tuple, or an object
    with the attributes ``model``, ``guide`` and perhaps ``x``.
    Raises :class:`~probvae.errors.ConfigError` for a file that is not there or does not run, and for another NAME.
    """
    path, _, name = source.rpartition(":")
    if not path or not name.isidentifier():
        raise ConfigError(f"program: expected FILE.py:NAME, got {source!r}. For example models/by_hand.py:digits.")
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise ConfigError(f"program: expected a Python file, got {path}, which is none. Check the path.")
    with _found_from(file):
        return _programs(_named(_run(file), name, file), name, file)


def _run(file: Path) -> ModuleType:
    name = f"_program_{file.stem}"
    spec = util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for the module of their class
    with _stopping_at(file):
        spec.loader.exec_module(module)
    return module


def _named(module: ModuleType, name: str, file: Path) -> Any:
    names = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    if name not in names:
        raise unknown_name(f"name in {file}:", name, names)
    return names[name]


def _programs(found: Any, name: str, file: Path) -> ProgramFile:
    if hasattr(found, "model") and hasattr(found, "guide"):
        return _checked(ProgramFile(found.model, found.guide, getattr(found, "x", None)), name, file)
    if callable(found):
        with _stopping_at(file):
            found = found()
        if hasattr(found, "model") and hasattr(found, "guide"):
            return _programs(found, name, file)
    if not isinstance(found, tuple) or len(found) not in (2, 3):
        got = f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
        raise ConfigError(f"{file}: expected {name} to be {_EXPECTED}; got {got}.")
    return _checked(ProgramFile(*found, *[None] * (3 - len(found))), name, file)


def _checked(programs: ProgramFile, name: str, file: Path) -> ProgramFile:
    for role in ("model", "guide"):
        if not callable(getattr(programs, role)):
            got = type(getattr(programs, role)).__name__
            raise ConfigError(f"{file}: expected the {role} of {name} to be callable, got {got}. Give {role}(x).")
    if programs.x is not None and not isinstance(programs.x, Tensor):
        raise ConfigError(
            f"{file}: expected the x of {name} to be a torch.Tensor, got {type(programs.x).__name__}. Convert it with "
            "torch.as_tensor(x)."
        )
    return programs


@contextmanager
def _found_from(file: Path) -> Iterator[None]:
    """Modules beside the file are found, as they are when it is run by itself."""
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextmanager
def _stopping_at(file: Path) -> Iterator[None]:
    """Whatever the file raises, in one line with its place."""
    try:
        yield
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError(f"{file}: it stopped at line {_line(error, file)} ({reason}). Mend it there.") from error


def _line(error: BaseException, file: Path) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    line, frame = None, error.__traceback__
    while frame is not None:
        if Path(frame.tb_frame.f_code.co_filename) == file:
            line = frame.tb_lineno
        frame = frame.tb_next
    return line
