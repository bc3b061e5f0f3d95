"""ArviZ without its announcement at import."""

import warnings
from types import ModuleType


def quiet_arviz() -> ModuleType:
    """The module ``arviz``, 0.23 or 1.x.

    Once a day 0.23 announces 1.0 with a ``FutureWarning`` at import. The warning is no news for a reader of our
    results, and under ``-W error`` it would stop the import half way.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    return arviz
