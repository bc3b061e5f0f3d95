"""Typicality: are the data as probable under the model as data that it makes itself?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probvae.diagnostics.verdicts import Effect, HypothesisTest, NotComputed, mean_with_error
from probvae.inference.evaluation.simulation import simulate_pairs
from probvae.inference.evidence.importance_sampling import importance_log_evidence
from probvae.inference.pair import VAE

NAME = "prediction/typicality"
Values = NDArray[Any]


@dataclass(frozen=True)
class Typicality:
    """log p of the data, ``log_p`` (N,), and of data from the model, ``simulated`` (M,), by the same ``num_samples``
    importance draws, in nats; ``p_value`` of the two-sample Kolmogorov-Smirnov test.
    """

    log_p: Tensor
    simulated: Tensor
    p_value: float
    num_samples: int

    @property
    def anomaly(self) -> Tensor:
        """The share of simulated data that are less probable than each datum, (N,): near zero is an anomaly."""
        below = torch.searchsorted(self.simulated.sort().values, self.log_p)
        return below.double() / len(self.simulated)

    def most_anomalous(self, number: int = 10) -> Tensor:
        """The rows of the ``number`` = K least probable data, the least probable first, (K,)."""
        return self.log_p.argsort()[:number]

    def summary(self) -> dict[str, Any]:
        rows = self.most_anomalous()
        return {
            "log_p": mean_with_error(self.log_p),
            "simulated_log_p": mean_with_error(self.simulated),
            "p_value": self.p_value,
            "num_below_all_simulated": int((self.anomaly == 0).sum()),
            "most_anomalous": [
                {"row": row, "log_p": float(self.log_p[row]), "anomaly": float(self.anomaly[row])}
                for row in rows.tolist()
            ],
            "num_simulated": len(self.simulated),
            "num_samples": self.num_samples,
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


def typicality(vae: VAE, x: Tensor, *, num_simulated: int, num_samples: int, seed: int) -> Typicality | NotComputed:
    r"""log p(x_n) beside its distribution under the model.

    Both sides are estimated by :func:`~probvae.inference.importance.importance_log_evidence` with few draws and one
    seed: the noise belongs to the content of x, so the estimate is a function of x alone, whatever its bias, and where
    the data come from the model it has the same distribution on both. Equal values (of counts, for example) are put in
    a random order. A datum can be too probable as well as too improbable. Not computed for a guide that has a q_x for
    the training data only.

    Source: Nalisnick et al. (2019), "Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality",
    arXiv:1906.02994, with a Kolmogorov-Smirnov test in the place of the mean.
    """
    if not vae.guide.amortized:
        return NotComputed(NAME, f"{type(vae.guide).__name__} has no q_x for simulated data. Use an amortised guide")
    from scipy.stats import ks_2samp

    pairs = simulate_pairs(vae, num_simulated, seed, like=x)
    log_p = importance_log_evidence(vae, x, num_samples, seed + 1).log_evidence
    simulated = importance_log_evidence(pairs.vae, pairs.x, num_samples, seed + 1).log_evidence
    # scipy's exact method overflows for some sizes; its asymptotic method errs on the side of the larger p-value.
    ours, theirs = _untied(log_p.cpu().numpy(), simulated.cpu().numpy(), seed)
    test = ks_2samp(ours, theirs, method="asymp")
    return Typicality(log_p, simulated, float(test.pvalue), num_samples)


def _untied(first: Values, second: Values, seed: int) -> tuple[Values, Values]:
    """The ranks of two samples (N,) and (M,) in both together, equal values in a random order."""
    joined = np.concatenate([first, second])
    order = np.lexsort([np.random.default_rng(seed).random(len(joined)), joined])
    ranks = np.empty(len(joined))
    ranks[order] = np.arange(len(joined))
    return ranks[: len(first)], ranks[len(first) :]
