"""New data from a fitted model."""

from typing import NamedTuple

import torch
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.foundation.checks import check_count
from probvae.inference.evaluation.simulation import simulate_pairs
from probvae.inference.pair import VAE

# Numbers in z, mean and x together: 1 GB of them
_MOST_NUMBERS = 2**28


class Sample(NamedTuple):
    """Draws from p(z) p(x|z): ``z`` (S, d), ``mean`` E[x|z] (S, D), and ``x`` (S, D)."""

    z: Tensor
    mean: Tensor
    x: Tensor


@torch.no_grad()
def sample(vae: VAE, num_samples: int = 64, seed: int = 0) -> Sample:
    """Draw ``num_samples`` data from the model; the caller's random state is left as it was.

    A conditional VAE is given its covariates first, ``vae.given(y)``: one row, or one row a draw. From another number
    of rows, each draw takes a row at random. Raises :class:`~probvae.errors.ArgumentError` for more than fit into 1 GB.

    >>> sample(VAE.example(), num_samples=5).x.shape
    torch.Size([5, 3])
    """
    check_count(num_samples, "num_samples", most=_MOST_NUMBERS // (vae.model.latent_dim + 2 * vae.model.data_dim))
    drawn, z, x = simulate_pairs(vae, num_samples, seed)
    return Sample(z, drawn.model.likelihood.point(drawn.model.decode(z)), x)


@torch.no_grad()
def decode_grid(vae: VAE, num_points: int = 20, extent: float = 3.0) -> Tensor:
    """E[x|z] (n, n, D) on a square grid of the latent plane: axis 0 is z_2, axis 1 is z_1, -extent to extent."""
    check_count(num_points, "num_points")
    if vae.model.latent_dim != 2:
        raise ArgumentError(f"decode_grid: expected latent_dim=2, got {vae.model.latent_dim}. Use sample() instead.")
    first = next(vae.parameters())
    axis = torch.linspace(-extent, extent, num_points, dtype=first.dtype, device=first.device)
    z = torch.cartesian_prod(axis, axis).flip(1)
    return vae.model.likelihood.point(vae.model.decode(z)).reshape(num_points, num_points, -1)
