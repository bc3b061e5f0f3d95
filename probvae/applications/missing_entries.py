"""Missing entries filled with draws and intervals."""

from typing import NamedTuple

import torch
from torch import Tensor

from probvae.applications.fitted_run import FittedRun, in_user_units
from probvae.inference import impute
from probvae.inference.pair import VAE


class Filled(NamedTuple):
    """Data whose missing entries are filled, S times; observed entries are as they were.

    ``draws`` (S, N, D), ``mean`` (N, D), E[x_missing | x_observed], the ends ``lower`` and ``upper`` (N, D) of the
    central interval, ``ess`` (N,), the effective number of importance draws behind a row, ``point`` (N, D), a possible
    value for each entry (see :class:`~probvae.inference.Imputed`), and ``missing`` (N, D), true where an entry was.
    """

    draws: Tensor
    mean: Tensor
    lower: Tensor
    upper: Tensor
    ess: Tensor
    point: Tensor
    missing: Tensor

    @property
    def num_missing(self) -> int:
        """How many entries were missing, in all rows together."""
        return int(self.missing.sum())


def filled_in_user_units(opened: FittedRun, filled: Filled) -> Filled:
    """``filled`` in the units of the data of ``opened``; observed entries are the values that were read, exactly."""
    observed = opened.original()

    def restored(values: Tensor) -> Tensor:
        values = in_user_units(opened.data, values)
        return torch.where(filled.missing, values, observed.to(values))

    names = ("draws", "mean", "lower", "upper", "point")
    return filled._replace(**{name: restored(getattr(filled, name)) for name in names})


def fill_missing(vae: VAE, x: Tensor, num_draws: int = 100, *, interval: float = 0.9, seed: int = 0) -> Filled:
    """:func:`~probvae.inference.impute` for the data ``x`` (N, D), with the places of the missing entries (NaN).

    A conditional VAE is given its covariates first, ``vae.given(y)``.
    """
    return Filled(*impute(vae, x, num_draws, interval=interval, seed=seed), x.isnan())
