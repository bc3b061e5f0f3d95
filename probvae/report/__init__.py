"""The report of a VAE: a page that says whether its posterior can be trusted, with all numbers, draws and figures.

In: what turns results into something to read. ``build_report.py`` writes a report of any VAE, ``run_report.py`` that
of a run folder, ``page.py`` the HTML, ``tables.py`` its tables, and ``arviz.py`` the draws for ArviZ; ``sections/``
has one file for each section of the page, ``figures/`` the figures, ``drawing/`` what figures have in common, and
``run_figures.py`` the figures that the other commands save. Out: every computation of a diagnostic
(``probvae.diagnostics``), and what is printed on a terminal (``probvae.cli``).

The door is the room itself, which can be called: ``probvae.report(vae, x, path)``.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from probvae.inference.pair import VAE

    from .arviz import to_arviz as to_arviz
    from .build_report import Report

__all__ = ["to_arviz"]


class CallableRoom(ModuleType):
    """The type of the module ``probvae.report``, so that it is both a package and the function of its name."""

    def __call__(
        self,
        vae: "VAE",
        x: "Tensor",
        path: str | Path,
        *,
        labels: "Sequence[Any] | np.ndarray | Tensor | None" = None,
        feature_names: Sequence[str] | None = None,
        image_shape: tuple[int, ...] | None = None,
        truth: str = "auto",
        num_data: int | None = None,
        quick: bool = False,
        seed: int = 0,
    ) -> "Report":
        """Diagnose a VAE on data and write the folder ``path``: report.html, report.json, posterior.nc and figures.

        ``probvae report RUN`` does the same for a run folder. All files are written at the end, or none; in a folder
        that is there already they replace those of an earlier report, and nothing else. A VAE of your own model and
        guide in Pyro comes from :func:`~probvae.program_vae`, one for known covariates from ``vae.given(y)``.

            report = probvae.report(vae, x, "digits-report", labels=labels, image_shape=(8, 8))
            print(report.diagnosis)

        Parameters
        ----------
        vae
            The VAE, or ``vae.given(y)``, with a row of y for each row of x or one for all.
        x
            The data (N, D), as the VAE reads them; best data that it was not fitted to.
        path
            The folder; it is made if it is not there.
        labels
            (N,), a label for each row: colours in the latent plane, and a coordinate in posterior.nc.
        feature_names
            D names of the columns.
        image_shape
            (H, W), or with 1 or 3 channels, where a row is an image: (8, 8) for the digits.
        truth
            Where log p(x) comes from, see :func:`~probvae.log_evidence`.
        num_data
            How many rows are taken, the first ones; by default at most 500, and 200 with ``quick``.
        quick
            Fewer data, simulations and draws: seconds, with larger errors.
        seed
            Seed of the draws; the caller's random state is left as it was.

        The result has the ``folder``, its ``files`` and the :class:`~probvae.diagnostics.diagnose.Diagnosis`.

        Raises :class:`~probvae.errors.ShapeError` or :class:`~probvae.errors.DataError` for data that do not fit,
        :class:`~probvae.errors.RunError` for a folder that cannot be written, or that holds files of other origin under
        these names, and what ``log_evidence`` raises for a ``truth`` that the model does not allow.
        """
        from probvae.report.build_report import Options, report_rows

        options = Options(num_data, truth=truth, quick=quick, seed=seed)
        return report_rows(vae, x, Path(path), options, labels, feature_names, image_shape)


def __getattr__(name: str) -> Any:
    # Looked up late: torch would make the figures of plain arrays slow to import.
    if name in __all__:
        return getattr(import_module("probvae.report.arviz"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Python's way to give a module behaviour of its own ("Customizing module attribute access" in its reference). The help
# of a module is its docstring, and so has to say how to call it.
sys.modules[__name__].__class__ = CallableRoom
__doc__ = f"{__doc__}\nprobvae.report(vae, x, path, ...)\n\n{cleandoc(CallableRoom.__call__.__doc__ or '')}\n"
