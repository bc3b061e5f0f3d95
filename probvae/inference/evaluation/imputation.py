"""Missing entries of x by draws from the fitted model."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.foundation.checks import check_count
from probvae.foundation.row_noise import RowNoise, row_keys
from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.non_finite import raise_as_non_finite
from probvae.inference.evaluation.memory import draw_z
from probvae.inference.evaluation.row_tiles import tiles_within_limit
from probvae.inference.pair import VAE, check_data
from probvae.models import CategoricalLikelihood, Likelihood, MixedLikelihood

# Draws at which the decoder is evaluated together
_AT_ONCE = 64
# An interval whose ends are two of S draws has the probability 1 - 2k/(S + 1) for a whole k. S is raised until that is
# at most so much above what is asked for,
_MOST_EXCESS = 0.002
# and an interval that takes more draws than this is refused, unless num_draws has them.
_MOST_INTERVAL_DRAWS = 10_000
_ROUNDING = 1e-9


class Imputed(NamedTuple):
    """Draws and intervals of the missing entries, in the units of x; observed entries are as they were.

    ``draws`` (S, N, D) from p(x_missing | x_observed); ``mean`` (N, D), E[x_missing | x_observed], of the code where a
    column has categories; ``lower`` and ``upper`` (N, D), the ends of the central interval; ``ess`` (N,), the effective
    number of the importance draws behind them; ``point`` (N, D), a value that x can have, for whoever wants one number
    an entry: the most frequent category among the draws, and their median where a column has no categories.
    """

    draws: Tensor
    mean: Tensor
    lower: Tensor
    upper: Tensor
    ess: Tensor
    point: Tensor


@torch.no_grad()
@raise_as_non_finite()
def impute(
    vae: VAE,
    x: Tensor,
    num_draws: int = 100,
    *,
    interval: float = 0.9,
    num_samples: int = 1000,
    seed: int = 0,
) -> Imputed:
    r"""Draws and intervals for the missing entries (NaN) of x, given the observed ones.

    .. math:: p(x_m|x_o) = E_{p(z|x_o)} [p(x_m|z)], \qquad
              E[x_m|x_o] \approx \sum_s \bar w_s\, E[x_m|z_s], \quad
              w_s = \frac{p(x_o|z_s)\, p(z_s)}{q_x(z_s)}, \quad z_s \sim q_x

    The guide's draws are weighted, so that an encoder that is a little wrong does no harm: where the effective number
    ``ess`` of the ``num_samples`` draws is large, the answer is that of the model, whatever the guide. With these
    weights ``num_draws`` draws are resampled. A row without missing entries comes back as it is.

    The ends of the interval are the k-th smallest and the k-th largest of S draws. A new value lies between them with
    the probability 1 - 2k/(S + 1), which is ``interval`` or at most 0.002 more; where ``num_draws`` allows no such k, a
    few more draws are made for the ends alone (for 0.9, 30 draws become 39). For x with few values the probability is
    larger. ``mean`` is NaN where p(x|z) has no mean, as a Student t with at most one degree of freedom.

    Raises :class:`~probvae.errors.ArgumentError` for a model without ``missing="mask"`` and for an interval that takes
    more than 10 000 draws (unless ``num_draws`` are as many), and :class:`~probvae.errors.NonFiniteError` where data
    overflow in the networks.
    Source: Mattei and Frellsen (2019), "MIWAE", arXiv:1812.02633, equation 10; David and Nagaraja (2003), "Order
    Statistics", section 7.2, for the interval.

    >>> import probvae
    >>> from probvae.models import LatentModel, LinearDecoder, GaussianLikelihood, StandardNormalPrior
    >>> from probvae.inference import DiagonalGuide, MaskedEncoder, MLPEncoder
    >>> model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3), missing="mask")
    >>> vae = probvae.VAE(model, DiagonalGuide(MaskedEncoder(MLPEncoder(6), 3), 2))
    >>> impute(vae, torch.tensor([[1.0, torch.nan, 2.0]])).draws.shape
    torch.Size([100, 1, 3])
    """
    _check_options(vae, num_draws, interval, num_samples)
    check_data(vae, x)
    ends = _interval_ends(num_draws, interval)
    with isolated_seed(seed, x.device):
        parts = [
            _impute_rows(*tile, num_draws, ends, num_samples, seed)
            for tile in tiles_within_limit(vae, x, max(num_samples, ends.num_draws))
        ]
    draws = torch.cat([part.draws for part in parts], dim=1)
    return Imputed(draws, *(torch.cat(column) for column in list(zip(*parts, strict=True))[1:]))


def _check_options(vae: VAE, num_draws: int, interval: float, num_samples: int) -> None:
    check_count(num_draws, "num_draws")
    check_count(num_samples, "num_samples")
    if not 0 < interval < 1:
        raise ArgumentError(f"interval: expected a probability between 0 and 1, got {interval!r}.")
    if vae.model.missing != "mask":
        raise ArgumentError("vae: expected a model for missing data. Build and fit it with missing='mask'.")


class _Ends(NamedTuple):
    """The interval's ends are the ``rank``-th smallest and the ``rank``-th largest of ``num_draws`` draws."""

    num_draws: int
    rank: int


def _interval_ends(num_draws: int, interval: float) -> _Ends:
    outside = (1 - interval) / 2
    least = math.ceil((1 - _ROUNDING) / outside)
    if least - 1 > max(num_draws, _MOST_INTERVAL_DRAWS):
        raise ArgumentError(
            f"interval: {interval!r} lies between the smallest and the largest of {least - 1} draws, got "
            f"num_draws={num_draws}. Ask for a smaller interval, or for num_draws={least - 1}."
        )
    spaces = max(num_draws + 1, least)  # S draws leave S + 1 spaces, all equally probable for a new value
    while 2 * (outside - math.floor(outside * spaces + _ROUNDING) / spaces) > _MOST_EXCESS:
        spaces += 1
    return _Ends(spaces - 1, math.floor(outside * spaces + _ROUNDING))


def _impute_rows(vae: VAE, x: Tensor, num_draws: int, ends: _Ends, num_samples: int, seed: int) -> Imputed:
    q, noise = vae.guide.distribution(x), RowNoise(row_keys(x), seed)
    z = draw_z(vae, x, q, num_samples, noise)
    log_weight = vae.model.log_joint(x, z) - q.log_prob(z)
    weight = log_weight.softmax(0)
    mean = _weighted_mean(vae, z, weight)
    with noise:
        chosen = torch.multinomial(weight.T, ends.num_draws, replacement=True).T
    resampled = z.gather(0, chosen.unsqueeze(-1).expand(-1, -1, z.shape[-1]))
    missing, likelihood = x.isnan(), vae.model.likelihood
    p = likelihood(vae.model.decode(resampled))
    with noise:
        draws = torch.where(missing, p.sample(), x)
    ordered = draws.sort(0).values
    point, categories = ordered[(ends.num_draws - 1) // 2].clone(), _categories(likelihood)
    point[:, categories] = draws[..., categories].mode(0).values
    return Imputed(
        draws[:num_draws],
        torch.where(missing, mean, x),
        ordered[ends.rank - 1],
        ordered[ends.num_draws - ends.rank],
        1 / weight.square().sum(0),
        point,
    )


def _weighted_mean(vae: VAE, z: Tensor, weight: Tensor) -> Tensor:
    total = torch.zeros((), dtype=z.dtype, device=z.device)
    for part, share in zip(z.split(_AT_ONCE), weight.split(_AT_ONCE), strict=True):
        total = total + (share.unsqueeze(-1) * vae.model.likelihood(vae.model.decode(part)).mean).sum(0)
    return total


def _categories(likelihood: Likelihood) -> list[int]:
    """The columns with codes of categories, whose order says nothing."""
    if isinstance(likelihood, MixedLikelihood):
        return [column for column, part in likelihood.parts_by_column() if isinstance(part, CategoricalLikelihood)]
    return list(range(likelihood.data_dim)) if isinstance(likelihood, CategoricalLikelihood) else []
