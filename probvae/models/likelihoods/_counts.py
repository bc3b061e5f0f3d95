"""What likelihoods of counts have in common."""

from torch import Tensor

from probvae._shapes import check_finite
from probvae.errors import SupportError


def check_counts(x: Tensor, likelihood: str) -> None:
    """Raise unless every value is one of 0, 1, 2, ..."""
    check_finite(x)
    bad = ((x < 0) | (x != x.round())).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise SupportError(
            f"x: {likelihood} needs counts 0, 1, 2, ..., got {x[row, column].item():g} (row {row}, column {column}; "
            f"{len(bad)} such entries). Use scaling='none', or take a Gaussian likelihood."
        )
