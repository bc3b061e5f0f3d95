"""Predictive checks: does the model make data like the observed ones?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from probvae.diagnostics.prediction.data_statistics import Statistic, default_statistics, evaluate
from probvae.diagnostics.prediction.loo import NUM_DRAWS, Loo, psis_loo
from probvae.diagnostics.prediction.monte_carlo import family_p_value, rank_p_values
from probvae.diagnostics.prediction.typicality import NUM_LISTED, Typicality, typicality
from probvae.diagnostics.verdicts import LEAST_NATS, Effect, HypothesisTest, NotComputed, Verdict, mean_with_error
from probvae.errors import ArgumentError
from probvae.foundation.checks import check_count
from probvae.foundation.seed import isolated_seed
from probvae.inference.evaluation.memory import current_limit, widest_layer
from probvae.inference.evaluation.simulation import simulate_pairs
from probvae.inference.evidence.log_evidence import Estimate, log_evidence
from probvae.inference.pair import VAE, check_data

NUM_REPLICATES = 2000
NUM_SIMULATED = 2000
NUM_SAMPLES = 50
# The whitening is learned from so many data from the model.
_NUM_WHITENING = 2000
# The entries of all replicated data sets together, which bound the time
_MOST_ENTRIES = 10**8
_LEAST_ROWS = 20
# So many tensors of the size of a data set are in memory while it is drawn.
_LIVE_COPIES = 6
# Data sets with z from the guide; their p-values are reported and not tested.
_MOST_POSTERIOR_REPLICATES = 200
# A statistic that no replicate varies in counts as so many standard deviations away.
_FAR = 1e6
# Added to the seed: data that were simulated with the same seed would be among the replicates.
_STREAM = 104_729


@dataclass(frozen=True)
class PredictiveCheckResult:
    """N data beside data from the model.

    - ``names`` of the K statistics, ``observed`` (K,), of ``num_rows`` of the data, and ``replicated`` (R, K) from the
      model, with ``p_values`` (K,) and their joint ``family_p_value``; ``posterior_replicated`` and
      ``posterior_p_values``: the same with z from the guide.
    - ``evidence``: log p(x_n) with its standard error and method, in nats per datum, of all N data or the first ones.
    - ``typicality``: log p(x_n) beside that of simulated data, and ``anomaly`` (N,), from it.
    - ``loo``: PSIS-LOO.
    """

    names: list[str]
    observed: Tensor
    replicated: Tensor
    posterior_replicated: Tensor
    p_values: Tensor
    posterior_p_values: Tensor
    family_p_value: float
    evidence: Estimate
    typicality: Typicality | NotComputed
    loo: Loo | NotComputed
    num_data: int
    num_rows: int

    @property
    def anomaly(self) -> Tensor | None:
        """The share of simulated data less probable than each datum (N,); None where there are no simulated data."""
        return self.typicality.anomaly if isinstance(self.typicality, Typicality) else None

    def summary(self) -> dict[str, Any]:
        """The numbers as plain data."""
        value = self.evidence.value
        return {
            "log_evidence": {
                **mean_with_error(value),
                "method": self.evidence.method,
                "kind": self.evidence.kind,
                "largest_error": float(self.evidence.standard_error.max()),
                "num_data": len(value),
            },
            "statistics": [self._statistic(index) for index in range(len(self.names))],
            "family_p_value": self.family_p_value,
            "typicality": self.typicality.summary(),
            "loo": self.loo.summary(),
            "num_data": self.num_data,
            "num_rows": self.num_rows,
            "num_replicates": len(self.replicated),
            "num_posterior_replicates": len(self.posterior_replicated),
        }

    def _statistic(self, index: int) -> dict[str, Any]:
        low, median, high = torch.quantile(self.replicated[:, index], _quantiles(self.replicated)).tolist()
        return {
            "name": self.names[index],
            "observed": float(self.observed[index]),
            "replicated": {"median": median, "low": low, "high": high, "probability": 0.95},
            "p_value": float(self.p_values[index]),
            "posterior_p_value": float(self.posterior_p_values[index]),
        }

    def verdicts(self) -> list[Verdict]:
        """Verdicts on the parts that could not be computed; everything else here is a test."""
        parts = (self.typicality, self.loo)
        return [verdict for part in parts if isinstance(part, NotComputed) for verdict in part.verdicts()]

    def tests(self) -> list[HypothesisTest]:
        """All statistics as one test, and the test of log p(x): valid for data that the model was not fitted to."""
        passed = f"Data sets from the model are like this one in {_statistics(len(self.names))}"
        worst, distance = self._farthest()
        error = 1 / math.sqrt(self.num_rows)
        effect = Effect.of_mean(distance * error, error, f"by the {self.names[worst]}", LEAST_NATS)
        found = [HypothesisTest("prediction/statistics", self.family_p_value, passed, self._rejected(worst), effect)]
        return found + ([self.typicality.test()] if isinstance(self.typicality, Typicality) else [])

    def _farthest(self) -> tuple[int, float]:
        """The statistic that is farthest from those of the replicates, and how many standard deviations that is.

        The half of the replicates' 95 % on the statistic's own side stands for the standard deviation. That of a mean
        over N data is 1 / sqrt(N) of a datum's, so the distance over sqrt(N) is that of a datum.
        """
        low, centre, high = torch.quantile(self.replicated, _quantiles(self.replicated), dim=0)
        unit = torch.where(self.observed > centre, high - centre, centre - low) / 1.96
        distance = ((self.observed - centre).abs() / unit.clamp(min=1e-12)).nan_to_num(posinf=_FAR).clamp(max=_FAR)
        worst = int(distance.argmax())
        return worst, float(distance[worst])

    def _rejected(self, worst: int) -> str:
        low, _, high = torch.quantile(self.replicated[:, worst], _quantiles(self.replicated)).tolist()
        return (
            f"Data sets from the model are not like this one: its {self.names[worst]} is "
            f"{float(self.observed[worst]):.3g}, and 95 % of theirs lie in [{low:.3g}, {high:.3g}]. "
            "Try another likelihood, c or prior"
        )


def predictive_check(
    vae: VAE,
    x: Tensor,
    *,
    statistics: Mapping[str, Statistic] | None = None,
    num_replicates: int = NUM_REPLICATES,
    num_rows: int | None = None,
    num_simulated: int = NUM_SIMULATED,
    num_samples: int = NUM_SAMPLES,
    num_draws: int = NUM_DRAWS,
    evidence: Estimate | None = None,
    num_listed: int = NUM_LISTED,
    row_numbers: Sequence[int] | None = None,
    seed: int = 0,
) -> PredictiveCheckResult:
    r"""Compare held-out data with data that the model makes.

    *Statistics.* ``statistics`` are functions of data sets (..., N, D) that give one number for each, (...), by name;
    without them those of :func:`~probvae.diagnostics.data_statistics.default_statistics`. They are taken of
    ``num_replicates`` data sets of the same size, z ~ p(z), x ~ p(x|z), with entries missing where they are missing in
    x; where N is large, of ``num_rows`` of the data, evenly spaced (by default as many as keep the number of simulated
    entries below 10^8, and 20 at least). Data from the model have among these a uniform rank, so the p-value

    .. math:: p_k = \min\Big(1, \frac{2}{R + 1} \min\big(\#\{T_{rk} \le T_k\}, \#\{T_{rk} \ge T_k\}\big)\Big)

    (T_k itself counted) is exact, for each statistic and for all of them together, as long as the model was not fitted
    to these data. With z ~ q(z|x_n) it is the classical posterior predictive p-value: it uses the data twice, tends
    to 1/2 and is reported, not tested.

    *Typicality.* log p(x_n) beside that of ``num_simulated`` data from the model, in closed form, by quadrature or by
    ``num_samples`` importance draws: :func:`~probvae.diagnostics.typicality.typicality`; ``anomaly`` says for each
    datum what share of these is less probable. The list of the least probable data has ``num_listed`` rows where each
    takes annealing, and calls them by their ``row_numbers`` (N,).

    *Evidence.* ``evidence`` (of all rows, or the first ones) is what ``log_evidence`` gives, and is computed if it is
    not handed over; and PSIS-LOO with ``num_draws`` draws a datum (:func:`~probvae.diagnostics.loo.psis_loo`).

    ``x`` is (N, D). The time is that of decoding ``num_replicates`` ``num_rows`` values of z; memory is bounded.
    Raises :class:`~probvae.errors.ArgumentError` for a statistic of another shape or with NaN, and for an ``evidence``
    of other data.
    Source: Box (1980), "Sampling and Bayes' inference in scientific modelling" (prior predictive); Gelman, Meng and
    Stern (1996), "Posterior predictive assessment of model fitness via realized discrepancies".

    >>> import probvae
    >>> vae = probvae.VAE.example()
    >>> statistics = {"range": lambda x: x.amax((-2, -1)) - x.amin((-2, -1))}
    >>> result = predictive_check(vae, torch.randn(20, 3), statistics=statistics, num_replicates=99, num_draws=200)
    >>> result.names, result.replicated.shape, result.anomaly.shape
    (['range'], torch.Size([99, 1]), torch.Size([20]))
    """
    check_data(vae, x)
    for name, value in (("num_replicates", num_replicates), ("num_simulated", num_simulated)):
        check_count(value, name)
    if num_rows is not None:
        check_count(num_rows, "num_rows")
    if row_numbers is not None and len(row_numbers) != len(x):
        raise ArgumentError(f"row_numbers: expected one for each of {len(x)} rows, got {len(row_numbers)}. Pass all.")
    if statistics is None:
        statistics = default_statistics(vae.model, simulate_pairs(vae, _NUM_WHITENING, seed + _STREAM + 9, like=x).x)
    _check_statistics(statistics)
    evidence = log_evidence(vae, x, seed=seed) if evidence is None else evidence
    _check_evidence(evidence, x)
    rows = _rows(x, num_replicates, num_rows)
    observed, replicated, posterior = _replicated(vae.at(rows), x[rows], statistics, num_replicates, seed)
    pooled = torch.cat([observed, replicated])
    return PredictiveCheckResult(
        list(statistics),
        observed[0],
        replicated,
        posterior,
        rank_p_values(pooled),
        rank_p_values(torch.cat([observed, posterior])),
        family_p_value(pooled),
        evidence,
        typicality(
            vae,
            x,
            num_simulated=num_simulated,
            num_samples=num_samples,
            seed=seed + _STREAM + 1,
            num_listed=num_listed,
            row_numbers=row_numbers,
        ),
        psis_loo(vae, x, num_draws=num_draws, seed=seed + _STREAM),
        len(x),
        len(rows),
    )


@torch.no_grad()
def _replicated(
    vae: VAE, x: Tensor, statistics: Mapping[str, Statistic], num_replicates: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The statistics of x (1, K), of data sets from the model (R, K), and of those with z from the guide."""
    observed, q = evaluate(statistics, x.unsqueeze(0)), vae.guide.distribution(x)
    with isolated_seed(seed + _STREAM, x.device):
        replicated = _replicated_statistics(vae, x, statistics, num_replicates, vae.model.prior())
        number = min(num_replicates, _MOST_POSTERIOR_REPLICATES)
        return observed, replicated, _replicated_statistics(vae, x, statistics, number, q)


@torch.no_grad()
def _replicated_statistics(
    vae: VAE, x: Tensor, statistics: Mapping[str, Statistic], num_replicates: int, p: Distribution
) -> Tensor:
    """The statistics (R, K) of R data sets like ``x`` (N, D): z ~ p for each datum, x ~ p(x|z), and the same holes.

    ``p`` is the prior (batch_shape () or (N,)), or the guide's distribution for x.
    """
    size = _num_at_once(vae, x)
    counts = [min(size, num_replicates - start) for start in range(0, num_replicates, size)]
    return torch.cat([evaluate(statistics, _data_sets(vae, x, p, count)) for count in counts])


def _data_sets(vae: VAE, x: Tensor, p: Distribution, number: int) -> Tensor:
    z = p.sample(torch.Size((number,) if p.batch_shape else (number, len(x))))
    return vae.model.likelihood(vae.model.decode(z)).sample().masked_fill(x.isnan(), torch.nan)


def _num_at_once(vae: VAE, x: Tensor) -> int:
    width = max(widest_layer(vae.model), x.shape[1])
    return max(1, current_limit() // (_LIVE_COPIES * x.element_size() * width * len(x)))


def _rows(x: Tensor, num_replicates: int, num_rows: int | None) -> Tensor:
    """The rows of x whose statistics are taken, evenly spaced: data may be sorted by class."""
    affordable = max(_LEAST_ROWS, _MOST_ENTRIES // (num_replicates * x.shape[1]))
    number = min(len(x), affordable if num_rows is None else num_rows)
    return torch.linspace(0, len(x) - 1, number, dtype=torch.float64).round().long().to(x.device)


def _check_statistics(statistics: Mapping[str, Statistic]) -> None:
    if not statistics or not all(callable(statistic) for statistic in statistics.values()):
        raise ArgumentError(
            'statistics: expected functions by name, {"largest": lambda x: x.amax((-2, -1))}, '
            f"got {dict(statistics)!r}. Leave it out for the usual ones."
        )


def _check_evidence(evidence: Estimate, x: Tensor) -> None:
    if len(evidence.value) > len(x):
        raise ArgumentError(
            f"evidence: expected an estimate for the {len(x)} rows of x, or the first of them, got one for "
            f"{len(evidence.value)}. Leave it out, and it is computed."
        )


def _quantiles(like: Tensor) -> Tensor:
    return torch.tensor([0.025, 0.5, 0.975]).to(like)


def _statistics(number: int) -> str:
    return "the one statistic" if number == 1 else f"all {number} statistics"
