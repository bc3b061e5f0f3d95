"""Typicality: are the data as probable under the model as data that it makes itself?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probvae.diagnostics.verdicts import Effect, HypothesisTest, NotComputed, mean_with_error
from probvae.errors import ProbvaeError
from probvae.inference.evaluation.simulation import simulate_pairs
from probvae.inference.evidence.importance_sampling import importance_log_evidence
from probvae.inference.evidence.log_evidence import Estimate, best_method, log_evidence
from probvae.inference.pair import VAE

NAME = "prediction/typicality"
Values = NDArray[Any]
# The truth is computed for all rows and all simulated data where it is cheap,
_CHEAP = ("exact", "quadrature")
# and where covariates make few groups of rows; otherwise for so many rows, those that importance sampling finds least
# probable with so many draws.
_MOST_GROUPS = 20
NUM_LISTED, _CANDIDATE_DRAWS = 30, 1000
# Equal data have equal values up to the tolerance of quadrature: decimals of a nat that count.
_DECIMALS = 4


@dataclass(frozen=True)
class Typicality:
    """log p of the data, ``log_p`` (N,), and of data from the model, ``simulated`` (M,), both by ``method``, in nats.

    ``p_value`` is that of the two-sample Kolmogorov-Smirnov test. ``least`` (K,) are the least probable rows, the least
    probable first, with ``evidence`` (K,), the log p(x) by which they are ranked: the best that the model allows.
    ``num_samples`` importance draws a datum were taken where ``method`` is "importance", else None. ``row_numbers``
    (N,) are what the user calls the rows.
    """

    log_p: Tensor
    simulated: Tensor
    p_value: float
    method: str
    num_samples: int | None
    least: Tensor
    evidence: Estimate
    row_numbers: Sequence[int]

    @property
    def anomaly(self) -> Tensor:
        """The share of simulated data that are less probable than each datum, (N,): near zero is an anomaly."""
        below = torch.searchsorted(self.simulated.sort().values, self.log_p)
        return below.double() / len(self.simulated)

    def most_anomalous(self, number: int = 10) -> Tensor:
        """The ``number`` = K least probable data, the least probable first, (K,), counted as in ``log_p``."""
        return self.least[:number]

    def numbers_of(self, data: Tensor) -> list[int]:
        """The row numbers of the user's for ``data`` (K,), which count as ``log_p`` does."""
        return [int(self.row_numbers[index]) for index in data.tolist()]

    def summary(self) -> dict[str, Any]:
        least = self.most_anomalous()
        values, errors = (part[: len(least)].tolist() for part in (self.evidence.value, self.evidence.standard_error))
        listed = zip(self.numbers_of(least), values, errors, self.anomaly[least].tolist(), strict=True)
        return {
            "log_p": mean_with_error(self.log_p),
            "simulated_log_p": mean_with_error(self.simulated),
            "method": self.method,
            "p_value": self.p_value,
            "num_below_all_simulated": int((self.anomaly == 0).sum()),
            "ranked_by": f"{self.evidence.method} ({self.evidence.kind})",
            "most_anomalous": [
                {"row": row, "log_p": value, "standard_error": error, "anomaly": share}
                for row, value, error, share in listed
            ],
            "num_simulated": len(self.simulated),
            **({} if self.num_samples is None else {"num_samples": self.num_samples}),
        }

    def test(self) -> HypothesisTest:
        passed = "The data are as probable under the model as data that it makes itself"
        return HypothesisTest(NAME, self.p_value, passed, self._rejected(), self._effect())

    def _effect(self) -> Effect:
        """The largest difference between the shares of data and of simulated data below some log p(x)."""
        ours, theirs = (values.double().sort().values for values in (self.log_p, self.simulated))
        points = torch.cat([ours, theirs])
        shares = [torch.searchsorted(values, points, right=True).double() / len(values) for values in (ours, theirs)]
        difference = (shares[0] - shares[1]).abs()
        worst = int(difference.argmax())
        half = 1.96 * (0.25 / len(ours) + 0.25 / len(theirs)) ** 0.5
        value = float(difference[worst])
        return Effect.between(value, value, half, f"for the share of data with log p(x) <= {float(points[worst]):.4g}")

    def _rejected(self) -> str:
        difference = float(self.log_p.double().median() - self.simulated.double().median())
        if difference < 0:
            return (
                f"The data are less probable than data from the model (log p(x) {-difference:.2g} nats lower in the "
                "median): they hold what the model does not make. Is the noise variance c too small, are the tails of "
                "the likelihood too light, or has the fit seen too little?"
            )
        return (
            f"The data are more probable than data from the model (log p(x) {difference:.2g} nats higher in the "
            "median): the model makes more than is in them. Is the noise variance c too large, or does the prior reach "
            "where no data are?"
        )


def typicality(
    vae: VAE,
    x: Tensor,
    *,
    num_simulated: int,
    num_samples: int,
    seed: int,
    num_listed: int = NUM_LISTED,
    row_numbers: Sequence[int] | None = None,
) -> Typicality | NotComputed:
    r"""log p(x_n) beside its distribution under the model, and the least probable rows.

    Both sides are the truth of :func:`~probvae.log_evidence` where that is a closed form or quadrature. Elsewhere both
    are estimated by :func:`~probvae.inference.importance.importance_log_evidence` with few draws and one seed: the
    noise belongs to the content of x, so the estimate is a function of x alone, whatever its bias, and where the data
    come from the model it has the same distribution on both. The least probable rows are then ranked by
    ``log_evidence`` (annealing) among the ``num_listed`` that 1000 importance draws find least probable: with a bad
    guide, a few draws put the rows that the guide knows least at the top.

    Equal values (of counts, for example) are put in a random order. A datum can be too probable as well as too
    improbable. Not computed for a guide that has a q_x for the training data only.

    Source: Nalisnick et al. (2019), "Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality",
    arXiv:1906.02994, with a Kolmogorov-Smirnov test in the place of the mean.
    """
    if not vae.guide.amortized:
        return NotComputed(NAME, f"{type(vae.guide).__name__} has no q_x for simulated data. Use an amortised guide")
    from scipy.stats import ks_2samp

    pairs = simulate_pairs(vae, num_simulated, seed, like=x)
    found = _truths(vae, x, pairs.vae, pairs.x)
    if found is None:
        log_p = importance_log_evidence(vae, x, num_samples, seed + 1).log_evidence
        simulated = importance_log_evidence(pairs.vae, pairs.x, num_samples, seed + 1).log_evidence
        method, drawn, (least, evidence) = "importance", num_samples, _least_probable(vae, x, num_listed, seed)
    else:
        log_p, simulated, method, drawn = found[0].value, found[1].value, found[0].method, None
        least, evidence = _ranked(torch.arange(len(x), device=x.device), found[0])
    # scipy's exact method overflows for some sizes; its asymptotic method errs on the side of the larger p-value.
    first, second = (values.double().cpu().numpy().round(_DECIMALS) for values in (log_p, simulated))
    test = ks_2samp(*_untied(first, second, seed), method="asymp")
    numbers = range(len(x)) if row_numbers is None else row_numbers
    return Typicality(log_p, simulated, float(test.pvalue), method, drawn, least, evidence, numbers)


def _truths(vae: VAE, x: Tensor, other: VAE, simulated: Tensor) -> tuple[Estimate, Estimate] | None:
    """log p(x) of both sides by closed form or quadrature; None where that is dear, or not known."""
    method, groups = best_method(vae), vae.groups(len(x))
    if method not in _CHEAP or (groups is not None and len(groups) > _MOST_GROUPS):
        return None
    try:
        ours, theirs = log_evidence(vae, x, method), log_evidence(other, simulated, method)
    except ProbvaeError:  # no grid covers the posterior
        return None
    known = all(is_known(part) for part in (ours, theirs))
    return (ours, theirs) if known else None


def is_known(evidence: Estimate) -> bool:
    """False where an error is so large that it bounds only what may hide between the nodes of quadrature."""
    return bool((evidence.standard_error <= 1 + evidence.value.abs()).all())


def _least_probable(vae: VAE, x: Tensor, number: int, seed: int) -> tuple[Tensor, Estimate]:
    """The least probable rows by the best method, out of those that importance sampling finds least probable."""
    sampled = importance_log_evidence(vae, x, _CANDIDATE_DRAWS, seed + 1)
    rows = sampled.log_evidence.argsort()[:number]
    try:
        return _ranked(rows, log_evidence(vae.at(rows), x[rows], seed=seed))
    except ProbvaeError:
        value, error = sampled.log_evidence[rows], sampled.standard_error[rows]
        return rows, Estimate(value, error, "importance", "lower bound")


def _ranked(rows: Tensor, evidence: Estimate) -> tuple[Tensor, Estimate]:
    order = evidence.value.argsort()
    value, error = evidence.value[order], evidence.standard_error[order]
    return rows[order], Estimate(value, error, evidence.method, evidence.kind)


def _untied(first: Values, second: Values, seed: int) -> tuple[Values, Values]:
    """The ranks of two samples (N,) and (M,) in both together, equal values in a random order."""
    joined = np.concatenate([first, second])
    order = np.lexsort([np.random.default_rng(seed).random(len(joined)), joined])
    ranks = np.empty(len(joined))
    ranks[order] = np.arange(len(joined))
    return ranks[: len(first)], ranks[len(first) :]
