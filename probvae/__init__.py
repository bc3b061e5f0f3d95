"""The variational autoencoder as a Bayesian model, which says how wrong its posterior is.

In: one folder for each room. ``foundation`` and ``storage`` carry the others; ``models`` has p, ``inference`` has q and
the fit, ``data`` what is fitted, ``diagnostics`` how wrong the posterior is, ``experiments`` whole runs,
``applications`` what one does with a fitted model, ``report`` the page, ``cli`` the command line. Imports go one way.
Out: recipes, notebooks and benchmarks, which stand beside the package.

The doors are :class:`~probvae.VAE`, :func:`~probvae.fit` and :func:`~probvae.diagnose`. Every public name of a room
(``probvae.models``, ``probvae.inference``, ...) is a name of the package too. A name is written once, in its room's
``__init__``, and looked up when it is first used: ``import probvae`` imports neither torch nor Pyro.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from probvae.foundation.package import __version__ as __version__

if TYPE_CHECKING:
    import probvae.report as _report_room
    from probvae.applications import *
    from probvae.data import *
    from probvae.diagnostics import *
    from probvae.inference import *
    from probvae.models import *
    from probvae.report import *

    report: _report_room.CallableRoom

# Lower layers first, because a look-up imports the rooms in this order until one of them has the name
_ROOMS = ("data", "models", "inference", "diagnostics", "applications", "report")


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(public for room in _ROOMS for public in _imported(room).__all__)
    if name[0] != "_":
        if find_spec(f"{__name__}.{name}"):
            return _imported(name)
        for room in map(_imported, _ROOMS):
            if name in room.__all__:
                return getattr(room, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__getattr__("__all__"), *_ROOMS})


def _imported(room: str) -> Any:
    return import_module(f"{__name__}.{room}")
