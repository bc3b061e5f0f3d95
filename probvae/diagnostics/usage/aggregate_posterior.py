"""The aggregate posterior q(z) = 1/N sum_n q(z|x_n)."""

import torch
from torch import Tensor

from probvae.inference.evaluation.bounds import chunks
from probvae.inference.pair import VAE

# Numbers in one table of draws and data, and how many of them a pair takes at least (a flow has hidden layers)
_ELEMENTS = 2**24
_LEAST_WIDTH = 32


@torch.no_grad()
def log_sum_of_others(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    r"""log sum_{n != m} q(z_sm | x_n), (S, N), for draws z (S, N, d) of which z_sm came from datum m; x is (N, D).

    The own datum is left out, because where it dominates it could not be taken out again; with it,

    .. math:: \log q(z_{sm}) = \log \Big( q(z_{sm}|x_m) + \sum_{n \ne m} q(z_{sm}|x_n) \Big) - \log N

    It costs S N^2 densities. For one datum it is minus infinity.
    """
    draws = z.flatten(0, 1)
    owner = torch.arange(z.shape[1], device=z.device).repeat(z.shape[0])
    total, first = torch.full_like(draws[:, 0], -torch.inf), 0
    for part, rows in chunks(vae, x, 1):
        q, place = part.guide.distribution(rows), torch.arange(first, first + len(rows), device=z.device)
        size = max(1, _ELEMENTS // (len(rows) * max(z.shape[2], _LEAST_WIDTH)))
        tables = zip(draws.split(size), owner.split(size), strict=True)
        sums = [
            q.log_prob(some.unsqueeze(1).expand(-1, len(rows), -1))
            .masked_fill(own.unsqueeze(1) == place, -torch.inf)
            .logsumexp(1)
            for some, own in tables
        ]
        total, first = torch.logaddexp(total, torch.cat(sums)), first + len(rows)
    return total.reshape(z.shape[:2])
