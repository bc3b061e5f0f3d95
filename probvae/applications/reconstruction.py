"""Data beside what a model makes of them."""

from typing import NamedTuple

from torch import Tensor

from probvae.inference import reconstruct
from probvae.inference.pair import VAE


class Reconstructions(NamedTuple):
    """``x`` (N, D), its ``reconstruction`` (N, D), and the ``squared_error`` (N,), a mean over observed entries."""

    x: Tensor
    reconstruction: Tensor
    squared_error: Tensor


def reconstruct_and_compare(vae: VAE, x: Tensor) -> Reconstructions:
    """Decode the posterior mean of each row of ``x`` (N, D), and compare it with the row.

    A conditional VAE is given its covariates first, ``vae.given(y)``.

    >>> reconstruct_and_compare(VAE.example(), torch.zeros(5, 3)).squared_error.shape
    torch.Size([5])
    """
    reconstruction = reconstruct(vae, x)
    return Reconstructions(x, reconstruction, (x - reconstruction).square().nanmean(1))
