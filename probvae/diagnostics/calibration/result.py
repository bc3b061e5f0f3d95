"""The result of a calibration: its numbers, and what its tests say.

The tests see different faults. The ranks of single latents do not see a wrong correlation, nor a guide that is equal to
the prior (which is right on average over x, and useless); the log weights and the classifier see both. Highest-density
regions see a wrong correlation. The mean of the z-scores does not see a wrong width, and TARP's references, a linear
prediction from x, do not depend on x where E[z|x] does not.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probvae.diagnostics.calibration.c2st import C2ST
from probvae.diagnostics.calibration.ranks import anderson_darling, uniformity_p_value, worst_level
from probvae.diagnostics.calibration.tarp import area_to_curve
from probvae.diagnostics.verdicts import (
    NATS,
    Effect,
    HypothesisTest,
    Verdict,
    mean_with_error,
    to_second_digit,
    with_error,
)

LEVELS = (0.5, 0.9, 0.95)
_LEVEL = 0.9
# From this shift of the mean rank on, q is called too high or too low, and otherwise too narrow or too wide.
_SHIFTED = 0.03


@dataclass(frozen=True)
class CalibrationResult:
    """The guide judged by N pairs (z, x) with d latents. With the right posterior,

    - ``rank`` (N, d), the rank of z_j among the guide's draws, is uniform on (0, 1);
    - ``density_level`` (N,), the content of the highest-density region on whose edge z lies, is uniform;
    - ``tarp_level`` (N,), the content of the ball on whose edge z lies, about a point that depends on x, is uniform;
    - ``log_weight_rank`` (N,), the rank of log p(x, z) - log q_x(z) among the draws, is uniform;
    - ``score`` (N, d), z less the guide's mean in the guide's standard deviations, has mean 0 and mean square 1, with
      ``score_p_value`` and ``spread_p_value``;
    - ``c2st``, a classifier's accuracy in telling the true z from a drawn one, is 1/2.

    ``scale`` (N, d) are the guide's standard deviations and ``prior_scale`` (d,) the prior's, in the units of z.
    ``section`` is where it stands in a report, ``source`` where the true z come from.
    """

    rank: Tensor
    density_level: Tensor
    tarp_level: Tensor
    log_weight_rank: Tensor
    score: Tensor
    scale: Tensor
    prior_scale: Tensor
    score_p_value: float
    spread_p_value: float
    c2st: C2ST
    num_draws: int
    section: str
    source: str

    @property
    def central_level(self) -> Tensor:
        """The content |2 u - 1| of the central interval on whose end z_j lies, (N, d)."""
        return (2 * self.rank - 1).abs()

    @property
    def contraction(self) -> Tensor:
        """1 - s^2 / Var_p[z_j] for each pair, (N, d): 0 where q is as wide as the prior, 1 where z is known."""
        return 1 - (self.scale / self.prior_scale).square()

    def coverage(self, level: float) -> dict[str, Any]:
        """The share of true z inside the regions of this content, which is to be ``level``.

        ``central`` is that of the intervals of single latents (the mean over latents), ``highest_density`` that of the
        joint regions.
        """
        inside = (self.central_level <= level).double().mean(1), (self.density_level <= level).double()
        central, joint = (mean_with_error(part) for part in inside)
        return {"expected": level, "central": central, "highest_density": joint}

    def summary(self) -> dict[str, Any]:
        """The numbers, as plain data."""
        latents = range(self.rank.shape[1])
        return {
            "source": self.source,
            "method": "randomised ranks, Anderson and Darling's test; paired classifier",
            "num_simulations": len(self.rank),
            "num_draws": self.num_draws,
            "coverage": [self.coverage(level) for level in LEVELS],
            "tarp_area": area_to_curve(self.tarp_level),
            "log_weight_rank": mean_with_error(self.log_weight_rank),
            "c2st_accuracy": self.c2st.as_dict(),
            "z_score": [mean_with_error(self.score[:, j]) for j in latents],
            "z_score_squared": [mean_with_error(self.score[:, j].square()) for j in latents],
            "contraction": [mean_with_error(self.contraction[:, j]) for j in latents],
        }

    def verdicts(self) -> list[Verdict]:
        """None: all verdicts of calibration rest on p-values."""
        return []

    def tests(self) -> list[HypothesisTest]:
        """Eight tests, which see different faults: the page of this module says which."""
        return calibration_tests(self)


def calibration_tests(result: CalibrationResult) -> list[HypothesisTest]:
    """All tests of ``result``, with p-values that are uniform (or larger) for the right posterior.

    >>> import probvae
    >>> result = probvae.diagnostics.calibration(probvae.VAE.example(), num_simulations=50, num_draws=20)
    >>> [test.name.split("/")[1] for test in calibration_tests(result)][:4]
    ['sbc', 'central_coverage', 'hpd_coverage', 'tarp']
    """
    covered = result.coverage(_LEVEL)
    central, joint = covered["central"]["value"], covered["highest_density"]["value"]
    quantile = "below the guide's {level} quantile of z_{latent}"
    found: list[_Found] = [
        _of_levels("sbc", result.rank, quantile, _rank_sentences(result.rank)),
        _of_levels(
            "central_coverage",
            result.central_level,
            "for intervals of {level} of z_{latent}",
            _share_sentences("central intervals", central),
        ),
        _of_levels(
            "hpd_coverage",
            result.density_level,
            "for regions of {level}",
            _share_sentences("highest-density regions", joint),
        ),
        _of_levels("tarp", result.tarp_level, "for balls of {level}", _ball_sentences(result.tarp_level)),
        _of_levels(
            "log_weight",
            result.log_weight_rank,
            "below the {level} quantile of the log weight",
            _log_weight_sentences(result.log_weight_rank),
        ),
        _of_classifier(result.c2st),
        *_score_tests(result),
    ]
    return [HypothesisTest(f"{result.section}/{one.name}", *one[1:]) for one in found]


class _Found(NamedTuple):
    """The fields of a test, its name without the section."""

    name: str
    p_value: float
    passed: str
    rejected: str
    effect: Effect | None = None


def _of_levels(name: str, level: Tensor, what: str, sentences: tuple[str, str]) -> _Found:
    """The test of a ``level`` (N,) or (N, d) that is to be uniform; ``what`` names the region of {level} of z_{latent}.

    The effect is that of the latent that is farthest from uniform.
    """
    columns = level.reshape(len(level), -1)
    latent = int(anderson_darling(columns).argmax())
    expected, share = worst_level(columns[:, latent])
    region = what.format(level=f"{expected:.0%}", latent=latent + 1)
    effect = Effect.of_share(share, expected, len(level), region)
    return _Found(name, uniformity_p_value(level), *sentences, effect)


def _of_classifier(found: C2ST) -> _Found:
    effect = Effect.of_share(found.accuracy, 0.5, found.num_judged, "from guessing")
    return _Found("c2st", found.p_value, *_classifier_sentences(found.accuracy), effect)


def _rank_sentences(rank: Tensor) -> tuple[str, str]:
    worst = int(anderson_darling(rank).argmax())
    u = rank[:, worst]
    mean, spread = float(u.mean()), float((2 * u - 1).abs().mean())
    if abs(mean - 0.5) > _SHIFTED:
        what = f"the mean rank is {mean:.2f}, not 0.5: the guide lies too {'high' if mean < 0.5 else 'low'}"
    else:
        wrong = "extreme: the guide is too narrow" if spread > 0.5 else "central: the guide is too wide"
        what = f"they are too {wrong}"
    return (
        "The true z ranks among the guide's draws like one of them, in every latent",
        f"The ranks of the true z_{worst + 1} among the guide's draws are not uniform; {what}",
    )


def _share_sentences(regions: str, share: float) -> tuple[str, str]:
    told = f"The guide's 90 % {regions} hold the true z in {share:.1%} of the cases"
    if share < _LEVEL:
        return told, f"{told}: it is too sure of itself"
    return told, f"{told}: it is too unsure, or its shape is wrong"


def _ball_sentences(level: Tensor) -> tuple[str, str]:
    area = area_to_curve(level)
    told = "Balls around points that depend on x hold the true z"
    wrong = "rarely: the guide is too sure of itself, or off" if area < 0 else "often: the guide is too unsure"
    return f"{told} as often as they should", f"{told} too {wrong} (area {area:+.3f})"


def _log_weight_sentences(rank: Tensor) -> tuple[str, str]:
    told = f"the mean rank of log p(x, z) - log q(z) at the true z is {float(rank.mean()):.3f}"
    wrong = "lacks mass where the true z are" if rank.mean() > 0.5 else "has not the shape of the posterior's"
    return f"The guide's density has the shape of the posterior's: {told} (0.5 is right)", (
        f"The guide's density {wrong}: {told}, not 0.5"
    )


def _classifier_sentences(accuracy: float) -> tuple[str, str]:
    told = f"A classifier picks the true z from a pair with a drawn one in {accuracy:.1%} of the cases"
    return f"{told}; guessing gives 50 %", f"{told}: draws of the guide differ from the posterior's"


def _score_tests(result: CalibrationResult) -> list[_Found]:
    if not result.score.isfinite().all():
        why = "the guide's standard deviation of some z is zero or not finite"
        return [_Found(name, math.nan, why, why) for name in ("z_score", "spread")]
    return [_of_mean_score(result), _of_spread(result)]


def _of_mean_score(result: CalibrationResult) -> _Found:
    score = result.score
    worst = int(score.mean(0).abs().argmax())
    mean, error = float(score[:, worst].mean()), float(score[:, worst].std()) / math.sqrt(len(score))
    offset, told_error = to_second_digit(mean, error) if error > 0 else (f"{mean:.2g}", "0")
    told = (
        f"The true z_{worst + 1} lies {'+' * (mean > 0)}{offset} ± {told_error} of the guide's standard deviations "
        "from its mean on average"
    )
    effect = Effect.of_mean(mean, error)
    return _Found(
        "z_score", result.score_p_value, f"{told}, as chance has it", f"{told}: the guide's mean is biased", effect
    )


def _of_spread(result: CalibrationResult) -> _Found:
    squares = result.score.square()
    means = squares.mean(0).clamp_min(1e-12)
    worst = int(_nats_of_variance(means).argmax())
    value, error = float(means[worst]), float(squares[:, worst].std()) / math.sqrt(len(squares))
    ends = torch.tensor([value - 1.96 * error, value + 1.96 * error], dtype=torch.float64).clamp_min(1e-3)
    costs = _nats_of_variance(ends)
    low = 0.0 if ends[0] <= 1 <= ends[1] else float(costs.min())
    effect = Effect(float(_nats_of_variance(means)[worst]), low, float(costs.max()), NATS)
    told = f"The mean squared z-score of z_{worst + 1} is {with_error(value, error)}; 1 is right"
    wrong = f"the guide's standard deviation is too {'small' if value > 1 else 'large'}"
    rejected = f"{told}: {wrong}{', or its mean off' if value > 1 else ''}"
    return _Found("spread", result.spread_p_value, told, rejected, effect)


def _nats_of_variance(ratio: Tensor) -> Tensor:
    """KL(N(0, 1) || N(0, v)) for variances v (...): what a guide loses whose true scores have this variance."""
    return (1 / ratio - 1 + ratio.log()) / 2
