"""Convergence: was the pair trained long enough?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probvae.diagnostics.verdicts import FAIL, OK, WARN, HypothesisTest, Verdict, mean_with_error, with_error
from probvae.foundation.row_noise import RowNoise, row_keys
from probvae.inference.evaluation.memory import draw_z
from probvae.inference.evaluation.row_tiles import tiles_within_limit
from probvae.inference.evaluation.variance import floor_warning
from probvae.inference.pair import VAE
from probvae.models import GaussianLikelihood

NAME = "convergence"
# Thresholds of the gain by more training, in nats per datum: the same sizes as those of the ledger's gap
WARN_GAIN, FAIL_GAIN = 0.05, 0.5
_NUM_DRAWS = 16
_LEARNED = ("learned", "per-dimension")
# The epochs whose trend is taken: the last fifth, and so many at least. Fewer than the least show no trend.
_SHARE, _WINDOW, _LEAST_EPOCHS = 0.2, 10, 4
_SIGMAS = 3.0


@dataclass(frozen=True)
class TrainedOn:
    """The rows ``x`` (N, D) that a pair was fitted to, with the ``vae`` for their covariates.

    ``history`` has a record for each epoch (:attr:`~probvae.FitResult.history`, or the lines of ``metrics.jsonl``), and
    is None where it is not known. ``objective`` is what was maximised: only the ELBO's own optimum is known.

    >>> import probvae
    >>> len(TrainedOn(probvae.VAE.example(), torch.zeros(5, 3)).x)
    5
    """

    vae: VAE
    x: Tensor
    history: Sequence[Mapping[str, Any]] | None = None
    objective: str = "elbo"


@dataclass(frozen=True)
class Trend:
    """The ``gain`` in the bound, with its ``standard_error``, if it rose for as many ``epochs`` again as it just did.

    ``of`` says which bound that is, and ``bound`` has its value after each epoch of the whole history.
    """

    gain: float
    standard_error: float
    epochs: int
    bound: tuple[float, ...]
    of: str


@dataclass(frozen=True)
class ConvergenceResult:
    """``ratio`` (N,) is E_q of the squared residuals in units of the learned c, whose mean is one at an optimum.

    It is None where no c was learned, or c sits on its floor. ``data_dim`` is D, ``on_training_rows`` says which rows
    they are, ``two_sided`` whether a ratio above one counts. ``trend`` is that of the last of ``num_epochs``; both are
    None where no history is known.
    """

    ratio: Tensor | None
    data_dim: int
    on_training_rows: bool
    two_sided: bool
    trend: Trend | None
    num_epochs: int | None

    def summary(self) -> dict[str, Any]:
        """The numbers as plain data."""
        found: dict[str, Any] = {"rows": "training rows" if self.on_training_rows else "these rows"}
        if self.ratio is not None:
            gain, error = self._gain_of_variance()
            found["variance_ratio"] = mean_with_error(self.ratio)
            found["gain_of_variance"] = {"value": gain, "standard_error": error}
            found["num_data"] = len(self.ratio)
        if self.num_epochs is not None:
            found["num_epochs"] = self.num_epochs
        if self.trend is not None:
            found["gain_of_last_epochs"] = {"value": self.trend.gain, "standard_error": self.trend.standard_error}
            found |= {"last_epochs": self.trend.epochs, "bound": self.trend.of}
        return found

    def verdicts(self) -> list[Verdict]:
        """The verdicts on the learned c and on the last epochs, those of the two that can be had."""
        found = [] if self.ratio is None else [self._variance_verdict()]
        return found + ([] if self.num_epochs is None else [self._trend_verdict(self.num_epochs)])

    def tests(self) -> list[HypothesisTest]:
        return []

    @property
    def ended(self) -> bool:
        """True where nothing that is known says that training should have gone on."""
        return all(verdict.status == OK for verdict in self.verdicts())

    def _gain_of_variance(self) -> tuple[float, float]:
        """D/2 (r - 1 - log r): what the best c would win by itself, and its standard error."""
        assert self.ratio is not None
        mean = mean_with_error(self.ratio)
        r, error = max(mean["value"] or 0.0, 1e-12), mean["standard_error"] or 0.0
        return self.data_dim / 2 * (r - 1 - math.log(r)), self.data_dim / 2 * abs(1 - 1 / r) * error

    def _variance_verdict(self) -> Verdict:
        assert self.ratio is not None
        mean = mean_with_error(self.ratio)
        r, error = mean["value"] or 0.0, mean["standard_error"] or 0.0
        gain, _ = self._gain_of_variance()
        far = abs(r - 1) > _SIGMAS * error and (r < 1 or self.two_sided)
        status = FAIL if far and gain > FAIL_GAIN else WARN if far and gain > WARN_GAIN else OK
        rows = "training rows" if self.on_training_rows else "rows"
        told = f"E|x - f(z)|^2 / D is {with_error(r, error)} of the learned c on these {rows}; 1 is where training ends"
        if status == OK:
            return Verdict(f"{NAME}/variance", OK, gain, FAIL_GAIN, told)
        side = "large" if r < 1 else "small"
        more = f"The learned c is too {side}, and {gain:.2g} nats per datum would come from c alone: train longer"
        return Verdict(f"{NAME}/variance", status, gain, FAIL_GAIN, f"{told}. {more}")

    def _trend_verdict(self, num_epochs: int) -> Verdict:
        name, trend = f"{NAME}/last_epochs", self.trend
        if trend is None:
            epochs = "1 epoch" if num_epochs == 1 else f"{num_epochs} epochs"
            return Verdict(name, FAIL, None, None, f"It was trained for {epochs}, which is hardly at all: train longer")
        sure = trend.gain - _SIGMAS * trend.standard_error
        status = FAIL if sure > FAIL_GAIN else WARN if sure > WARN_GAIN else OK
        told = (
            f"At the pace of the last {trend.epochs} epochs, {trend.epochs} more would win "
            f"{with_error(trend.gain, trend.standard_error)} nats of {trend.of}"
        )
        message = f"{told}: train longer" if status != OK else told
        return Verdict(name, status, trend.gain, FAIL_GAIN, message)


def convergence(vae: VAE, x: Tensor, trained_on: TrainedOn | None = None, *, seed: int = 0) -> ConvergenceResult:
    r"""Was the pair trained long enough? Two questions, each where it can be asked.

    *The learned c.* At a stationary point of the ELBO, on the training rows,

    .. math:: c = \frac1D E_x E_{z \sim q_x} \lVert x - f(z) \rVert^2

    (for a c in each dimension the residuals are in its units). What the best c would win by itself is
    D/2 (r - 1 - log r) for a ratio r. On other rows than those of the training, residuals are larger than in training,
    and only a c that is too large for them says something; the same holds for bounds that are tighter than the ELBO.

    *The last epochs.* A line through the bound of the last fifth of the epochs, that on the validation data if there
    are any; its error allows for noise that lasts for several epochs.

    ``x`` is (N, D); the rows of ``trained_on`` take its place where they are known. Nats per datum.
    Source: Rybkin, Daniilidis and Levine (2021), arXiv:2006.13202, equation 8.

    >>> import probvae
    >>> [verdict.name for verdict in convergence(probvae.VAE.example(), torch.randn(50, 3)).verdicts()]
    ['convergence/variance']
    """
    rows = x if trained_on is None else trained_on.x
    pair = vae if trained_on is None else trained_on.vae
    history = None if trained_on is None else trained_on.history
    tight = trained_on is not None and trained_on.objective in ("elbo", "analytic-kl", "stl")
    return ConvergenceResult(
        _ratios(pair, rows, seed) if _has_learned_variance(pair, rows) else None,
        x.shape[1],
        trained_on is not None,
        tight,
        None if history is None else trend_of(history),
        None if history is None else len(history),
    )


def can_be_asked(vae: VAE, trained_on: TrainedOn | None) -> bool:
    """True if :func:`convergence` has a verdict for the pair."""
    return trained_on is not None or getattr(vae.model.likelihood, "mode", None) in _LEARNED


def _has_learned_variance(vae: VAE, x: Tensor) -> bool:
    likelihood = vae.model.likelihood
    learned = isinstance(likelihood, GaussianLikelihood) and likelihood.mode in _LEARNED
    return learned and vae.guide.amortized and floor_warning(vae, x) is None


@torch.no_grad()
def _ratios(vae: VAE, x: Tensor, seed: int) -> Tensor:
    """E_q of the mean squared residual in units of c, (N,), in float64."""
    return torch.cat([_tile_ratios(part, rows, seed) for part, rows in tiles_within_limit(vae, x, _NUM_DRAWS)])


def _tile_ratios(vae: VAE, x: Tensor, seed: int) -> Tensor:
    likelihood = vae.model.likelihood
    assert isinstance(likelihood, GaussianLikelihood)
    z = draw_z(vae, x, vae.guide.distribution(x), _NUM_DRAWS, RowNoise(row_keys(x), seed))
    parameters = vae.model.decode(z)
    squares = (x - likelihood.mean(parameters)).square() / likelihood.variance(parameters)
    return squares.nanmean(-1).double().mean(0)


def trend_of(history: Sequence[Mapping[str, Any]]) -> Trend | None:
    """The trend of the last epochs of a ``history``; None for fewer than four.

    >>> found = trend_of([{"elbo": -10.0 + epoch} for epoch in range(20)])
    >>> found.gain, found.epochs
    (10.0, 10)
    """
    name = "validation_elbo" if history and "validation_elbo" in history[-1] else "elbo"
    values = np.array([record.get(name, math.nan) for record in history], dtype=np.float64)
    num = min(len(values), max(_WINDOW, round(_SHARE * len(values))))
    last = values[len(values) - num :]
    if num < _LEAST_EPOCHS or not np.isfinite(last).all():
        return None
    place = np.arange(num) - (num - 1) / 2
    slope = float(place @ last / (place @ place))
    left = last - last.mean() - slope * place
    variance = float(left @ left) / (num - 2)
    # Noise that lasts makes a line look surer than it is: its correlation from epoch to epoch widens the error.
    correlation = float(left[1:] @ left[:-1] / (left @ left)) if variance > 0 else 0.0
    # The residuals of a line are less correlated than the noise was, by about two over its length.
    correlation = min(0.9, max(0.0, correlation + 2 / num))
    error = math.sqrt(variance / (place @ place) * (1 + correlation) / (1 - correlation))
    told = "the bound on the validation data" if name == "validation_elbo" else "the training bound"
    return Trend(round(slope * num, 12), error * num, num, tuple(values.tolist()), told)
