"""Components of other packages, which announce them as entry points ``probvae.priors``, ``probvae.guides``, ..."""

import warnings
from functools import cache
from importlib.metadata import entry_points

from probvae.errors import PluginWarning


@cache
def load_plugins(family: str) -> None:
    """Import what installed packages offer for ``family`` ("prior"), once; a class registers itself as it is defined.

    One that cannot be imported is a warning that names it, and does not hinder the others.
    """
    for entry in entry_points(group=f"probvae.{family}s"):
        try:
            entry.load()
        except Exception as error:  # a stranger's package may fail in any way
            package = entry.dist.name if entry.dist else entry.value
            warnings.warn(
                f"{family} {entry.name!r} of the package {package} cannot be loaded ({type(error).__name__}: {error}). "
                "Update or remove that package.",
                PluginWarning,
                stacklevel=3,
            )
