"""Refusals of data by likelihoods: the first entry that does not fit, and a way out."""

from torch import Tensor

from probvae.errors import SupportError
from probvae.foundation.checks import check_finite


def check_entries(x: Tensor, fits: Tensor, needs: str, fix: str) -> None:
    """Raise unless every entry of ``x`` (N, D) is finite and ``fits`` (N, D) there; ``needs`` says what fits."""
    check_finite(x)
    bad = (~fits).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        # A single column belongs to a table, whose likelihood names the column
        where = f"row {row}" if x.shape[1] == 1 else f"row {row}, column {column}"
        raise SupportError(f"x: {needs}, got {x[row, column].item():g} ({where}; {len(bad)} such entries). Use {fix}.")


def check_counts(x: Tensor, likelihood: str) -> None:
    """Raise unless every value of ``x`` (N, D) is one of 0, 1, 2, ..."""
    fix = "scaling='none', or take a Gaussian likelihood"
    check_entries(x, (x >= 0) & (x == x.round()), f"{likelihood} needs counts 0, 1, 2, ...", fix)
