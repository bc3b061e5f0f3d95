"""How far the guide's posterior can be corrected by importance weights, datum by datum."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probvae.diagnostics.verdicts import FAIL, OK, WARN, HypothesisTest, Verdict, mean_with_error
from probvae.foundation.checks import check_count
from probvae.foundation.row_noise import RowNoise, row_keys
from probvae.foundation.seed import isolated_seed
from probvae.inference.evaluation.row_tiles import tiles
from probvae.inference.evidence.importance_sampling import WeightedDraws, weighted_draws
from probvae.inference.evidence.log_mean_errors import log_mean_error, summed
from probvae.inference.evidence.pareto_smoothing import LEAST_SAMPLES, SmoothedWeights, good_pareto_k, pareto_smooth
from probvae.inference.pair import VAE, check_data

NUM_SAMPLES = 1000
# A verdict changes at these shares of the data above the threshold of k,
_WARN_SHARE, _FAIL_SHARE = 0.05, 0.5
# and at these mean effective shares of the draws.
_WARN_ESS, _FAIL_ESS = 0.5, 0.1

# Separates the numbers that resample from those that draw.
_STREAM = 1


@dataclass(frozen=True)
class ImportanceDiagnostic:
    """Per datum, (N,): ``pareto_k``, ``ess`` (out of ``num_samples``), and log p(x) from the smoothed weights.

    ``pareto_k`` is -inf where the weights are constant: the guide is exact there, or exact on a part of the posterior
    that it never leaves. ``log_evidence`` and its ``standard_error`` are in nats; the latter rests on the weights that
    were drawn.
    """

    pareto_k: Tensor
    ess: Tensor
    log_evidence: Tensor
    standard_error: Tensor
    num_samples: int

    @property
    def threshold(self) -> float:
        """The largest k for which so many draws suffice."""
        return good_pareto_k(self.num_samples)

    @property
    def share_above(self) -> float:
        """The share of the data whose k is above the threshold."""
        return float((self.pareto_k > self.threshold).double().mean())

    def summary(self) -> dict[str, Any]:
        """The numbers as plain data; k is None where the weights are constant."""
        median, largest = self.pareto_k.median(), self.pareto_k.max()
        return {
            "method": "Pareto-smoothed importance sampling from the guide",
            "num_data": len(self.ess),
            "num_samples": self.num_samples,
            "threshold": self.threshold,
            "share_above": self.share_above,
            "num_constant": int(self.pareto_k.isneginf().sum()),
            "median_pareto_k": float(median) if median.isfinite() else None,
            "largest_pareto_k": float(largest) if largest.isfinite() else None,
            "ess_share": mean_with_error(self.ess / self.num_samples),
            "log_evidence": mean_with_error(self.log_evidence),
        }

    def verdicts(self) -> list[Verdict]:
        """The verdicts on the tail, and on the effective sample size."""
        return [self._tail_verdict(), self._ess_verdict()]

    def tests(self) -> list[HypothesisTest]:
        return []

    def _tail_verdict(self) -> Verdict:
        share, k = self.share_above, self.threshold
        status = FAIL if share > _FAIL_SHARE else WARN if share > _WARN_SHARE else OK
        message = {
            OK: f"Pareto k <= {k:.2g} for {1 - share:.0%} of the data: importance weights can correct the guide there "
            "(a mode that the guide never visits is not seen here)",
            WARN: f"Pareto k > {k:.2g} for {share:.0%} of the data: the guide is too far from their posteriors to be "
            "corrected by weights",
            FAIL: f"Pareto k > {k:.2g} for {share:.0%} of the data: the guide's tails are too light, and its weights "
            "have no reliable mean",
        }[status]
        return Verdict("importance/pareto_k", status, share, _FAIL_SHARE, message)

    def _ess_verdict(self) -> Verdict:
        share = float((self.ess / self.num_samples).mean())
        status = FAIL if share < _FAIL_ESS else WARN if share < _WARN_ESS else OK
        message = f"{self.num_samples} draws of the guide are worth {share:.0%} as many of the posterior"
        return Verdict("importance/ess", status, share, _FAIL_ESS, message)


def importance_diagnostic(vae: VAE, x: Tensor, num_samples: int = NUM_SAMPLES, seed: int = 0) -> ImportanceDiagnostic:
    r"""The Pareto shape k of each datum's importance weights, their effective number, and a smoothed evidence.

    .. math:: w_s = \frac{p(x|z_s)\, p(z_s)}{q_x(z_s)}, \quad z_s \sim q_x, \qquad
              \mathrm{ess} = \frac{(\sum_s w_s)^2}{\sum_s w_s^2}

    The weights have a finite variance for k < 1/2, a finite mean for k < 1; ``num_samples`` of them suffice for
    k < min(1 - 1/log10 S, 0.7). One number a datum, where Pyro's and NumPyro's ``psis_diagnostic`` give one for the
    joint weight of the whole batch. For a diagonal guide on a posterior of correlation rho, k = |rho|.

    k says nothing of modes that the guide never visits: weights from one of two equal modes are constant. ``x`` is
    (N, D).

    Raises :class:`~probvae.errors.ArgumentError` for fewer than 25 draws, and
    :class:`~probvae.errors.DataError` for bad data.
    Source: Yao, Vehtari, Simpson and Gelman (2018), arXiv:1802.02538; Vehtari et al. (2024), arXiv:1507.02646.

    >>> import probvae
    >>> importance_diagnostic(probvae.VAE.example(), torch.zeros(5, 3)).pareto_k.shape
    torch.Size([5])
    """
    check_count(num_samples, "num_samples", least=LEAST_SAMPLES)
    check_data(vae, x)
    with isolated_seed(seed, x.device):
        parts = [_weighed(weighted_draws(part, rows, num_samples, seed)) for part, rows in tiles(vae, x, num_samples)]
    log_w = torch.cat([part.log_weights for part in parts], 1)
    log_sum, log_squares = torch.logsumexp(log_w, 0), torch.logsumexp(2 * log_w, 0)
    ess = (2 * log_sum - log_squares).exp()
    error = torch.cat([part.standard_error for part in parts])
    pareto_k = torch.cat([part.pareto_k for part in parts])
    return ImportanceDiagnostic(pareto_k, ess, log_sum - math.log(num_samples), error, num_samples)


def resample(vae: VAE, x: Tensor, num_samples: int = 100, *, num_proposals: int = NUM_SAMPLES, seed: int = 0) -> Tensor:
    r"""Draws of p(z|x): those of the guide, drawn again with replacement in proportion to their smoothed weights.

    ``num_proposals`` draws of q_x are weighted for each datum of ``x`` (N, D), and ``num_samples`` are kept: (S, N, d),
    in the units of z. As good as :func:`importance_diagnostic` says: where k is above its threshold, they are not draws
    of the posterior.

    Raises what :func:`importance_diagnostic` raises.
    Source: Rubin (1988), "Using the SIR algorithm to simulate posterior distributions".

    >>> import probvae
    >>> resample(probvae.VAE.example(), torch.zeros(5, 3), num_samples=10).shape
    torch.Size([10, 5, 2])
    """
    check_count(num_samples, "num_samples")
    check_count(num_proposals, "num_proposals", least=LEAST_SAMPLES)
    check_data(vae, x)
    with isolated_seed(seed, x.device):
        parts = [
            _redrawn(rows, weighted_draws(part, rows, num_proposals, seed, keep_draws=True), num_samples, seed)
            for part, rows in tiles(vae, x, num_proposals)
        ]
    return torch.cat(parts, dim=1)


class _Weighed(NamedTuple):
    """Smoothed ``log_weights`` (S, N) with ``pareto_k`` (N,), and the error (N,) of the log mean of those drawn."""

    log_weights: Tensor
    pareto_k: Tensor
    standard_error: Tensor


def _weighed(draws: WeightedDraws) -> _Weighed:
    error = log_mean_error(summed([draws.log_weights], len(draws.log_weights)))
    return _Weighed(*_smoothed(draws), error)


def _smoothed(draws: WeightedDraws) -> SmoothedWeights:
    return pareto_smooth(draws.log_weights, draws.rounding)


def _redrawn(x: Tensor, draws: WeightedDraws, num_samples: int, seed: int) -> Tensor:
    assert draws.z is not None
    weights = _smoothed(draws).log_weights.softmax(0)
    with RowNoise(row_keys(x), (seed, _STREAM)):
        index = torch.multinomial(weights.T, num_samples, replacement=True).T
    return draws.z.gather(0, index.unsqueeze(-1).expand(-1, -1, draws.z.shape[-1]))
