"""How far means and standard deviations of the posterior can be from the guide's, at most."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probvae.diagnostics.verdicts import mean_with_error
from probvae.foundation.checks import check_count
from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.moments import mean_and_variance
from probvae.inference.evaluation.row_tiles import tiles
from probvae.inference.evidence.importance_sampling import WeightedDraws, weighted_draws
from probvae.inference.evidence.pareto_smoothing import LEAST_SAMPLES, good_pareto_k, pareto_smooth
from probvae.inference.pair import VAE, check_data

NUM_SAMPLES = 4000


@dataclass(frozen=True)
class DistanceBounds:
    """Per datum, (N,): ``d2`` = D_2(p||q) in nats, and upper bounds of W_1 and W_2 between q_x and p(z|x).

    The latter are in the units of z.
    The mean of the posterior is within ``wasserstein_1`` of the guide's, and the standard deviation of the posterior in
    any direction within ``wasserstein_2`` of the guide's. ``reliable`` (N,) says where the weights are light enough
    for the estimate of d2 to be trusted (Pareto k below its threshold for the squared weights' mean).
    """

    d2: Tensor
    wasserstein_1: Tensor
    wasserstein_2: Tensor
    reliable: Tensor

    def summary(self) -> dict[str, Any]:
        """The means as plain data."""
        names = ("d2", "wasserstein_1", "wasserstein_2")
        numbers = {name: mean_with_error(getattr(self, name)) for name in names}
        return {**numbers, "num_data": len(self.d2), "num_reliable": int(self.reliable.sum())}


def distance_bounds(vae: VAE, x: Tensor, num_samples: int = NUM_SAMPLES, seed: int = 0) -> DistanceBounds:
    r"""Bounds of the Wasserstein distances between guide and posterior, from the importance weights.

    .. math:: D_2(p \| q) = \log \frac{E_q[w^2]}{E_q[w]^2}, \qquad
              W_r(q, p) \le 2 \, E_q\big[\lVert z - m \rVert^{2r}\big]^{1/2r} \, (e^{D_2} - 1)^{1/2r}

    with w = p(x, z)/q_x(z) and m the mean of q_x. They hold for the exact D_2; here it is estimated from
    ``num_samples`` draws, and its estimate is too small where the squared weights have a heavy tail or a mode is never
    visited. ``x`` is (N, D).

    Raises :class:`~probvae.errors.ArgumentError` for fewer than 25 draws, and
    :class:`~probvae.errors.DataError` for bad data.
    Source: Huggins, Kasprzak, Campbell and Broderick (2020), arXiv:1910.04102, theorem 3.3 and corollary 3.4.

    >>> import probvae
    >>> distance_bounds(probvae.VAE.example(), torch.zeros(5, 3)).wasserstein_2.shape
    torch.Size([5])
    """
    check_count(num_samples, "num_samples", least=LEAST_SAMPLES)
    check_data(vae, x)
    with isolated_seed(seed, x.device):
        parts = [
            _bounds(part, rows, weighted_draws(part, rows, num_samples, seed, keep_draws=True))
            for part, rows in tiles(vae, x, num_samples)
        ]
    return DistanceBounds(*(torch.cat(column) for column in zip(*parts, strict=True)))


def wasserstein_bound(d2: Tensor, moment: Tensor, order: int) -> Tensor:
    r"""The bound of W_r for r = ``order``, from D_2 and the guide's central ``moment`` E||z - m||^{2r}.

    >>> wasserstein_bound(torch.tensor(0.4133), torch.tensor(16.0), order=1)  # q = N(0, 16), p = N(0, 4)
    tensor(5.7232)
    """
    return 2 * (moment * torch.expm1(d2)) ** (1 / (2 * order))


@torch.no_grad()
def _bounds(vae: VAE, x: Tensor, draws: WeightedDraws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    assert draws.z is not None
    log_w, num_samples = draws.log_weights, len(draws.log_weights)
    d2 = torch.logsumexp(2 * log_w, 0) - 2 * torch.logsumexp(log_w, 0) + math.log(num_samples)
    d2 = d2.clamp(min=0)  # constant weights: rounding alone makes it negative
    square = (draws.z - mean_and_variance(vae.guide.distribution(x))[0]).double().square().sum(-1)
    first, second = (wasserstein_bound(d2, square.pow(order).mean(0), order) for order in (1, 2))
    k = pareto_smooth(2 * log_w, 2 * draws.rounding).pareto_k
    return d2, first, second, k <= good_pareto_k(num_samples)
