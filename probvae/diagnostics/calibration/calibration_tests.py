"""The tests of a calibration, and what each says.

What they see differs: the ranks of single latents do not see a wrong correlation, nor a guide that is equal to the
prior (which is right on average over x, and useless); the log weights and the classifier see both. Highest-density
regions see a wrong correlation. The mean of the z-scores does not see a wrong width, and TARP's references, a linear
prediction from x, do not depend on x where E[z|x] does not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from probvae.diagnostics.calibration.ranks import anderson_darling, uniformity_p_value
from probvae.diagnostics.calibration.tarp import area_to_curve
from probvae.diagnostics.verdicts import HypothesisTest

if TYPE_CHECKING:
    from probvae.diagnostics.calibration.calibrate import CalibrationResult

_LEVEL = 0.9
_SHIFTED = 0.03  # of the mean rank; below it, ranks that are not uniform are called too narrow or too wide


def calibration_tests(result: CalibrationResult) -> list[HypothesisTest]:
    """All tests of ``result``, with p-values that are uniform (or larger) for the right posterior.

    >>> import probvae
    >>> result = probvae.diagnostics.calibration(probvae.VAE.example(), num_simulations=50, num_draws=20)
    >>> [test.name.split("/")[1] for test in calibration_tests(result)][:4]
    ['sbc', 'central_coverage', 'hpd_coverage', 'tarp']
    """
    covered = result.coverage(_LEVEL)
    central, joint = covered["central"]["value"], covered["highest_density"]["value"]
    found: list[tuple[str, float, str, str]] = [
        ("sbc", uniformity_p_value(result.rank), *_of_ranks(result.rank)),
        ("central_coverage", uniformity_p_value(result.central_level), *_of_coverage("central intervals", central)),
        ("hpd_coverage", uniformity_p_value(result.density_level), *_of_coverage("highest-density regions", joint)),
        ("tarp", uniformity_p_value(result.tarp_level), *_of_balls(result.tarp_level)),
        ("log_weight", uniformity_p_value(result.log_weight_rank), *_of_log_weights(result.log_weight_rank)),
        ("c2st", result.c2st.p_value, *_of_classifier(result.c2st.accuracy)),
        *_of_finite_scores(result),
    ]
    return [HypothesisTest(f"{result.section}/{name}", p, passed, rejected) for name, p, passed, rejected in found]


def _of_ranks(rank: Tensor) -> tuple[str, str]:
    worst = int(anderson_darling(rank).argmax())
    u = rank[:, worst]
    mean, spread = float(u.mean()), float((2 * u - 1).abs().mean())
    if abs(mean - 0.5) > _SHIFTED:
        what = f"the mean rank is {mean:.2f}, not 0.5: q lies too {'high' if mean < 0.5 else 'low'}"
    else:
        what = f"they are too {'extreme: q is too narrow' if spread > 0.5 else 'central: q is too wide'}"
    return (
        "The true z ranks among the guide's draws like one of them, in every latent",
        f"The ranks of the true z_{worst + 1} among the guide's draws are not uniform; {what}",
    )


def _of_coverage(regions: str, share: float) -> tuple[str, str]:
    told = f"The guide's 90 % {regions} hold the true z in {share:.1%} of the cases"
    if share < _LEVEL:
        return told, f"{told}: it is too sure of itself"
    return told, f"{told}: it is too unsure, or its shape is wrong"


def _of_balls(level: Tensor) -> tuple[str, str]:
    area = area_to_curve(level)
    told = "Balls around points that depend on x hold the true z"
    return f"{told} as often as they should", f"{told} too {'rarely' if area < 0 else 'often'} (area {area:+.3f})"


def _of_log_weights(rank: Tensor) -> tuple[str, str]:
    told = f"the mean rank of log p(x, z) - log q(z) at the true z is {float(rank.mean()):.3f}"
    return (
        f"The guide's density has the shape of the posterior's: {told} (0.5 is right)",
        f"The guide's density lacks mass where the true z are: {told}, not 0.5",
    )


def _of_classifier(accuracy: float) -> tuple[str, str]:
    told = f"A classifier picks the true z from a pair with a drawn one in {accuracy:.1%} of the cases"
    return f"{told}; guessing gives 50 %", f"{told}: draws of the guide differ from the posterior's"


def _of_finite_scores(result: CalibrationResult) -> list[tuple[str, float, str, str]]:
    if not result.score.isfinite().all():
        why = "the guide's standard deviation of some z is zero or not finite"
        return [(name, math.nan, why, why) for name in ("z_score", "spread")]
    return [
        ("z_score", result.score_p_value, *_of_scores(result.score)),
        ("spread", result.spread_p_value, *_of_spread(result.score)),
    ]


def _of_scores(score: Tensor) -> tuple[str, str]:
    mean = score.mean(0)
    worst = int(mean.abs().argmax())
    told = f"The true z_{worst + 1} lies {float(mean[worst]):+.2f} of the guide's standard deviations from its mean"
    return f"{told} on average, as chance has it", f"{told} on average: the guide's mean is biased"


def _of_spread(score: Tensor) -> tuple[str, str]:
    squares = score.square().mean(0)
    worst = int((squares.log().abs()).argmax())
    value = float(squares[worst])
    told = f"The mean squared z-score of z_{worst + 1} is {value:.2f}; 1 is right"
    return told, f"{told}: the guide's standard deviation is too {'small' if value > 1 else 'large'} (or its mean off)"
