"""Measures of pairs (z, x): the true z is compared with the guide's draws for x."""

from typing import NamedTuple

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Distribution

from probvae.diagnostics.calibration.c2st import with_products
from probvae.diagnostics.calibration.ranks import randomised_rank
from probvae.diagnostics.calibration.scores import exchanged_sums, num_exchanges
from probvae.diagnostics.calibration.tarp import Prediction, fit_prediction, tarp_levels
from probvae.errors import DataError
from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.moments import mean_and_variance
from probvae.inference.densities.point_mass import check_has_density
from probvae.inference.evaluation.row_tiles import tiles_within_limit
from probvae.inference.evaluation.simulation import Pairs, simulate_pairs
from probvae.inference.pair import VAE

# The log weights cost a pass through the decoder for each draw, and their rank needs fewer of them.
NUM_LOG_WEIGHTS = 100
# Added to the seed: the draws must not repeat the random numbers from which the pairs were made.
_PREDICTION, _DRAWS = 0x2545F491, 0x5851F42D


class Measures(NamedTuple):
    """N pairs, d latents; the fields of :class:`~probvae.diagnostics.calibration.CalibrationResult`, and more.

    ``score_sums`` (B + 1, 2, d) are the sums of the scores and of their squares, and those of B sets by chance;
    ``features`` and ``drawn_features`` (N, F) describe the true z and one draw to a classifier.
    """

    rank: Tensor
    density_level: Tensor
    tarp_level: Tensor
    log_weight_rank: Tensor
    score: Tensor
    scale: Tensor
    score_sums: Tensor
    features: Tensor
    drawn_features: Tensor


@torch.no_grad()
def measure(pairs: Pairs, num_draws: int, seed: int) -> Measures:
    """All measures of the N ``pairs``, a chunk of them at a time, with ``num_draws`` draws of q for each."""
    vae, z, x = pairs
    # The references may not know the true z, and so are fitted to pairs that are not tested.
    fresh = simulate_pairs(vae, len(x), seed + _PREDICTION, like=x)
    prediction = fit_prediction(fresh.z, fresh.x)
    parts, start, num_sets = [], 0, num_exchanges(*z.shape)
    with isolated_seed(seed + _DRAWS, x.device), dist.validation_enabled(False):  # z may lie outside q's support
        for part, rows in tiles_within_limit(vae, x, num_draws):
            parts.append(_measure(part, z[start : start + len(rows)], rows, prediction, num_draws, num_sets))
            start += len(rows)
    return _joined(parts)


def _measure(vae: VAE, z: Tensor, x: Tensor, prediction: Prediction, num_draws: int, num_sets: int) -> Measures:
    q = vae.guide.distribution(x)
    check_has_density(q)
    draws = q.sample(torch.Size((num_draws,)))
    _check_draws(draws)
    near, place = prediction(x), prediction.scale
    reference = near + place * torch.randn_like(near)
    log_density = _log_density(q, torch.cat([z.unsqueeze(0), draws]))
    log_weight = _log_weights(vae, x, z, draws, log_density)
    mean, variance = mean_and_variance(q)
    score = (torch.cat([z.unsqueeze(0), draws]) - mean) / variance.sqrt()

    def features(which: int, value: Tensor) -> Tensor:
        plain = torch.stack([log_weight[which], log_density[which]], dim=1)
        return torch.cat([plain, _features(score[which], (value - near) / place, near)], dim=1)

    return Measures(
        rank=randomised_rank(z, draws),
        density_level=1 - randomised_rank(log_density[0], log_density[1:]),
        tarp_level=tarp_levels(z / place, draws / place, reference / place),
        log_weight_rank=randomised_rank(log_weight[0], log_weight[1:]),
        score=score[0].double(),
        scale=variance.sqrt().double(),
        score_sums=exchanged_sums(score, num_sets),
        features=features(0, z),
        drawn_features=features(1, draws[0]),
    )


def _log_density(q: Distribution, z: Tensor) -> Tensor:
    """log q_x(z) (1 + L, N); outside the support, where some distributions give NaN, minus infinity."""
    return q.log_prob(z).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _log_weights(vae: VAE, x: Tensor, z: Tensor, draws: Tensor, log_density: Tensor) -> Tensor:
    """log p(x, z) - log q_x(z) (1 + L, N) of the truth and the first draws."""
    num = min(len(draws), NUM_LOG_WEIGHTS)
    log_joint = vae.model.log_joint(x, torch.cat([z.unsqueeze(0), draws[:num]]))
    return log_joint.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf) - log_density[: num + 1]


def _features(score: Tensor, residual: Tensor, near: Tensor) -> Tensor:
    """Features (N, F) that a wrong mean, width or correlation, or a lost dependence on x, would change."""
    return torch.cat([with_products(score), residual, residual.square(), score * near], dim=1)


def _check_draws(draws: Tensor) -> None:
    bad = (~draws.isfinite()).any(dim=-1).any(dim=0)
    if bad.any():
        raise DataError(
            f"guide: q_x gives draws that are not finite for {int(bad.sum())} of {len(bad)} data. Fit again with a "
            "smaller learning rate, or clip the guide's scale."
        )


def _joined(parts: list[Measures]) -> Measures:
    columns = zip(Measures._fields, zip(*parts, strict=True), strict=True)
    return Measures(*(torch.stack(v).sum(0) if name == "score_sums" else torch.cat(v) for name, v in columns))
