"""Components of other packages, which announce them as entry points ``probvae.priors``, ``probvae.guides``, ..."""

import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from probvae.errors import PluginWarning


@cache
def load_plugins(family: str) -> None:
    """Import what installed packages offer for ``family`` ("prior"), once; a class registers itself as it is defined.

    One that cannot be imported, or is no component, is a warning that names it, and does not hinder the others.
    """
    for entry in entry_points(group=f"probvae.{family}s"):
        try:
            offered = entry.load()
        except Exception as error:  # a stranger's package may fail in any way
            _warn(family, entry, f"cannot be loaded ({type(error).__name__}: {str(error).rstrip('.')})")
            continue
        if getattr(offered, "family", None) != family or getattr(offered, "registered_name", None) is None:
            _warn(family, entry, f"is no component: expected a {family} class with name='...', got {offered!r}")


def _warn(family: str, entry: EntryPoint, reason: str) -> None:
    package = entry.dist.name if entry.dist else entry.value
    message = f"{family} {entry.name!r} of the package {package} {reason}. Update or remove that package."
    warnings.warn(message, PluginWarning, stacklevel=4)
