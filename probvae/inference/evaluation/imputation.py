"""Missing entries of x by draws from the fitted model."""

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

# Draws at which the decoder is evaluated together
_AT_ONCE = 64


class Imputed(NamedTuple):
    """Draws and intervals of the missing entries, in the units of x; observed entries are as they were.

    ``draws`` (S, N, D) from p(x_missing | x_observed); ``mean`` (N, D); ``lower`` and ``upper`` (N, D), the ends of the
    central interval; ``ess`` (N,), the effective number of the importance draws behind them.
    """

    draws: Tensor
    mean: Tensor
    lower: Tensor
    upper: Tensor
    ess: Tensor


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
    weights ``num_draws`` draws are resampled; ``interval`` is the probability of the central interval that is taken
    from them. A row without missing entries comes back as it is.

    Raises :class:`~probvae.errors.ArgumentError` for a model without ``missing="mask"``, and
    :class:`~probvae.errors.NonFiniteError` where data overflow in the networks.
    Source: Mattei and Frellsen (2019), "MIWAE", arXiv:1812.02633, equation 10.

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
    with isolated_seed(seed, x.device):
        parts = [
            _impute_rows(*tile, num_draws, interval, num_samples, seed)
            for tile in tiles_within_limit(vae, x, num_samples)
        ]
    draws = torch.cat([part.draws for part in parts], dim=1)
    return Imputed(draws, *(torch.cat([part[field] for part in parts]) for field in range(1, 5)))


def _check_options(vae: VAE, num_draws: int, interval: float, num_samples: int) -> None:
    check_count(num_draws, "num_draws")
    check_count(num_samples, "num_samples")
    if not 0 < interval < 1:
        raise ArgumentError(f"interval: expected a probability between 0 and 1, got {interval!r}.")
    if vae.model.missing != "mask":
        raise ArgumentError("vae: expected a model for missing data. Build and fit it with missing='mask'.")


def _impute_rows(vae: VAE, x: Tensor, num_draws: int, interval: float, num_samples: int, seed: int) -> Imputed:
    q, noise = vae.guide.distribution(x), RowNoise(row_keys(x), seed)
    z = draw_z(vae, x, q, num_samples, noise)
    log_weight = vae.model.log_joint(x, z) - q.log_prob(z)
    weight = log_weight.softmax(0)
    mean = _weighted_mean(vae, z, weight)
    with noise:
        chosen = torch.multinomial(weight.T, num_draws, replacement=True).T
    resampled = z.gather(0, chosen.unsqueeze(-1).expand(-1, -1, z.shape[-1]))
    missing = x.isnan()
    p = vae.model.likelihood(vae.model.decode(resampled))
    with noise:
        draws = torch.where(missing, p.sample(), x)
    ends = torch.tensor([(1 - interval) / 2, (1 + interval) / 2], dtype=x.dtype, device=x.device)
    lower, upper = draws.quantile(ends, dim=0)
    return Imputed(draws, torch.where(missing, mean, x), lower, upper, 1 / weight.square().sum(0))


def _weighted_mean(vae: VAE, z: Tensor, weight: Tensor) -> Tensor:
    total = torch.zeros((), dtype=z.dtype, device=z.device)
    for part, share in zip(z.split(_AT_ONCE), weight.split(_AT_ONCE), strict=True):
        total = total + (share.unsqueeze(-1) * vae.model.likelihood.point(vae.model.decode(part))).sum(0)
    return total
