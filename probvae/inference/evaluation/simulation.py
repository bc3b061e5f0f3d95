"""Pairs (z, x) from the model: data whose true z is known."""

from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from probvae.foundation.checks import check_count
from probvae.foundation.seed import isolated_seed
from probvae.inference.pair import VAE


class Pairs(NamedTuple):
    """``z`` (N, d) and ``x`` (N, D), row by row from p(z) p(x|z), and the ``vae`` for the covariates of these rows."""

    vae: VAE
    z: Tensor
    x: Tensor


@torch.no_grad()
def simulate_pairs(vae: VAE, num_pairs: int, seed: int = 0, like: Tensor | None = None) -> Pairs:
    """``num_pairs`` draws of z ~ p(z), x ~ p(x|z); the caller's random state is left as it was.

    A pair with covariates (:meth:`~probvae.VAE.given`) is simulated at them: row by row where they have ``num_pairs``
    rows, and otherwise at rows drawn at random. ``like`` (M, D) are data with missing entries: the same entries of
    rows drawn at random are then missing (NaN) in x.

    >>> import probvae
    >>> pairs = simulate_pairs(probvae.VAE.example(), num_pairs=5)
    >>> pairs.z.shape, pairs.x.shape
    (torch.Size([5, 2]), torch.Size([5, 3]))
    """
    check_count(num_pairs, "num_pairs")
    with isolated_seed(seed, _device(vae)):
        vae = _for_draws(vae, num_pairs)
        prior = vae.model.prior()
        z = prior.sample() if prior.batch_shape else prior.sample(torch.Size((num_pairs,)))
        x = vae.model.likelihood(vae.model.decode(z)).sample()
        if like is not None and like.isnan().any():
            holes = like.isnan()[torch.randint(len(like), (num_pairs,))]
            x = x.masked_fill(holes.to(x.device), torch.nan)
    return Pairs(vae, z, x)


def _device(vae: VAE) -> torch.device:
    tensors = chain(*((*part.parameters(), *part.buffers()) for part in (vae.model, vae.guide)))
    return next(tensors, torch.empty(0)).device


def _for_draws(vae: VAE, num_draws: int) -> VAE:
    """The pair for ``num_draws`` new data: covariates that are there for other data are drawn from, at random."""
    vae.model.check_conditioned()
    if vae.num_rows in (None, num_draws):
        return vae
    return vae.at(torch.randint(vae.num_rows, (num_draws,)))
