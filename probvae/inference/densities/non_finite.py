"""Parameters that no distribution can have, and the error that says where they come from."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # torch does not list it as public

from probvae.errors import ArgumentError, NonFiniteError, ProbvaeError

# torch raises these for parameters that no distribution has: NaN, and a matrix that is not positive definite.
TORCH_ERRORS = (ValueError, LinAlgError)
_TORCH_SAYS = "found invalid values"
# torch's words for a value, and not a parameter, of which it has no density
_OUTSIDE = "to be within the support"


@contextmanager
def raise_as_non_finite() -> Iterator[None]:
    """Raise torch's refusal of NaN in a distribution as :class:`~probvae.errors.NonFiniteError`.

    A value outside of a distribution's support is an :class:`~probvae.errors.ArgumentError`.

    Functions that a user calls with checked data use it, where finite data can still overflow in the networks. A fit
    says more, see :mod:`probvae.inference.training.bad_sites`.

    >>> import torch
    >>> with raise_as_non_finite():  # doctest: +ELLIPSIS
    ...     torch.distributions.Normal(torch.tensor(torch.nan), 1.0)
    Traceback (most recent call last):
    ...
    probvae.errors.NonFiniteError: x: expected data whose numbers stay finite in the networks, got an overflow ...
    """
    try:
        yield
    except TORCH_ERRORS as error:
        if isinstance(error, ProbvaeError) or not (isinstance(error, LinAlgError) or _TORCH_SAYS in str(error)):
            raise
        if _OUTSIDE in str(error):
            raise ArgumentError(
                f"model: expected values of z inside the support of prior and guide, got some outside "
                f"({short_reason(error)}). A prior with ends needs a guide with the same ones: ConstrainedGuide(guide, "
                "low, high)."
            ) from error
        raise NonFiniteError(
            f"x: expected data whose numbers stay finite in the networks, got an overflow ({short_reason(error)}). "
            "Look for outliers, or standardise the data before the fit (scaling='standardize')."
        ) from error


def check_finite_values(values: Tensor, what: str) -> None:
    """Raise :class:`~probvae.errors.NonFiniteError` where one of ``values`` (N,), called ``what``, is not finite."""
    bad = int((~values.isfinite()).sum())
    if bad:
        raise NonFiniteError(
            f"x: expected data whose numbers stay finite in the networks, got an overflow ({what} is not finite for "
            f"{bad} of {len(values)} data). Look for outliers, or standardise the data before the fit "
            "(scaling='standardize')."
        )


def short_reason(error: Exception) -> str:
    """The message of torch, in one line.

    >>> short_reason(ValueError("found invalid values:\\ntensor(nan)"))
    'found invalid values'
    """
    cause = error.__cause__ if isinstance(error, NonFiniteError) else error
    return str(cause).split("\n")[0].removesuffix(":")
