"""Mean and variance of q_x, also where they have no closed form."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from probvae.foundation.row_noise import RowNoise, sample_rows
from probvae.foundation.seed import isolated_seed

# Draws a datum where there is no closed form: a standard error of 3 % of the standard deviation
NUM_DRAWS = 1000


def mean_and_variance(q: Distribution) -> tuple[Tensor, Tensor]:
    """E[z] and Var[z_j], each of q's batch and event shape; from draws that are the same at every call if need be.

    Flows and other transformed distributions have no closed form: then 1000 draws are taken, with the same noise for
    every datum of the batch, so that a datum's moments do not depend on the others.
    """
    try:
        return q.mean, q.variance
    except NotImplementedError:
        return _of_draws(q)


def _of_draws(q: Distribution) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), isolated_seed(0, torch.zeros(0).device):
        # A distribution without rows of its own is drawn as it is.
        noise = RowNoise(torch.zeros(q.batch_shape[:1], dtype=torch.int64), 0)
        z = sample_rows(q, NUM_DRAWS, noise) if q.batch_shape else q.sample(torch.Size((NUM_DRAWS,)))
    return z.mean(0), z.var(0)
