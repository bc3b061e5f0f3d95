"""The package's version, and the names that a room offers, each written once."""

import sys
from types import ModuleType

__version__ = "0.2.0.dev0"


def export_public_names(room: str) -> None:
    """Set ``__all__`` of the package ``room`` to all that its ``__init__`` imported, submodules and helpers apart.

    It is the last line of an ``__init__`` that consists of ``from .file import Name as Name``, which type checkers read
    as "``Name`` is public", and ``from .family import *``. A literal ``__all__`` would write every name twice.
    """
    module = sys.modules[room]
    public = {name for name, value in vars(module).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    module.__dict__["__all__"] = sorted(public - {export_public_names.__name__})
