"""Calibration: is the guide right on average, judged by pairs (z, x) whose true z is known?"""

import torch
from torch import Tensor

from probvae.diagnostics.calibration.c2st import paired_c2st
from probvae.diagnostics.calibration.measures import Measures, measure
from probvae.diagnostics.calibration.posterior_draws import posterior_draws
from probvae.diagnostics.calibration.result import CalibrationResult
from probvae.diagnostics.calibration.scores import mean_p_value, spread_p_value
from probvae.diagnostics.verdicts import NotComputed
from probvae.errors import ArgumentError, ProbvaeError
from probvae.foundation.checks import check_count
from probvae.inference.densities.moments import mean_and_variance
from probvae.inference.evaluation.simulation import Pairs, simulate_pairs
from probvae.inference.pair import VAE, check_data

NUM_SIMULATIONS, NUM_DRAWS = 2000, 400
SIMULATED, OBSERVED = "calibration", "calibration_on_data"


def calibration(
    vae: VAE,
    *,
    num_simulations: int = NUM_SIMULATIONS,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
    like: Tensor | None = None,
) -> CalibrationResult | NotComputed:
    r"""Is q_x(z) the posterior of the model? Pairs z ~ p(z), x ~ p(x|z) tell, because z is a draw of p(z|x).

    .. math:: z \mid x \sim p(z|x) \quad \text{and} \quad z_1, \dots, z_L \mid x \sim q_x \quad
              \text{are exchangeable where } q_x(z) = p(z|x)

    so that the rank of any quantity of (z, x) among the same of the draws is uniform. It is taken of each latent
    (simulation-based calibration, and coverage of central intervals), of log q_x(z) (coverage of highest-density
    regions), of the distance to points that depend on x (TARP), and of log p(x, z) - log q_x(z), which is constant for
    the right posterior and sees any other, a guide that is equal to the prior included. Nothing is fitted again.

    It says nothing of whether the model fits the data: x is simulated. For the posterior at real data, see
    :func:`calibration_on_data`.

    Parameters
    ----------
    num_simulations, num_draws
        N pairs, and L draws of the guide for each.
    like
        Data with missing entries (NaN), for a model that takes them: the same entries are missing in x.

    A guide that is not amortised has no posterior for simulated data: then the result is ``NotComputed``.
    Raises :class:`~probvae.errors.ArgumentError` for fewer than 20 simulations or draws, and
    :class:`~probvae.errors.DataError` where the guide's draws are not finite.
    Source: Talts et al. (2018), arXiv:1804.06788; Modrák et al. (2023), arXiv:2211.02383, for quantities of (z, x);
    Lemos et al. (2023), arXiv:2302.03026; Betancourt (2018), arXiv:1803.08393, section 4.3 (z-score and contraction).

    >>> import probvae
    >>> result = calibration(probvae.VAE.example(), num_simulations=50, num_draws=20)
    >>> result.rank.shape, len(result.tests())
    (torch.Size([50, 2]), 8)
    """
    _check_counts(num_simulations, "num_simulations", num_draws)
    if (reason := _not_amortised(vae)) is not None:
        return NotComputed(SIMULATED, reason)
    pairs = simulate_pairs(vae, num_simulations, seed, like)
    return _result(pairs, num_draws, seed, SIMULATED, "pairs simulated from the model")


def calibrate_pairs(
    pairs: Pairs, *, num_draws: int = NUM_DRAWS, seed: int = 0, section: str = SIMULATED, source: str = "given pairs"
) -> CalibrationResult | NotComputed:
    """:func:`calibration` with ``pairs`` of your own: each z must be a draw of the **true** posterior of its x.

    ``section`` and ``source`` say what the pairs are, for the report.

    >>> import probvae
    >>> pairs = simulate_pairs(probvae.VAE.example(), 50, seed=3)
    >>> calibrate_pairs(pairs, num_draws=20).coverage(0.9)["expected"]
    0.9
    """
    _check_counts(len(pairs.x), "pairs", num_draws)
    if (reason := _not_amortised(pairs.vae)) is not None:
        return NotComputed(section, reason)
    return _result(pairs, num_draws, seed, section, source)


def calibration_on_data(
    vae: VAE, x: Tensor, *, num_draws: int = NUM_DRAWS, seed: int = 0
) -> CalibrationResult | NotComputed:
    r"""Is q_x(z) the posterior *at the data* ``x`` (N, D)? One draw of the true p(z|x) for each datum tells.

    Simulated data are where the model puts them; a guide may be right there and wrong where the data are. The true
    draws come from the closed form, where the model has one, or from numerical integration for d <= 2; otherwise the
    result is ``NotComputed`` with the reason. Arguments and errors are those of :func:`calibration`.

    >>> import probvae
    >>> calibration_on_data(probvae.VAE.example(), torch.zeros(30, 3), num_draws=20).source
    'exact posterior at the data'
    """
    check_data(vae, x)
    _check_counts(len(x), "x", num_draws)
    if (reason := _not_amortised(vae)) is not None:
        return NotComputed(OBSERVED, reason)
    try:
        truth = posterior_draws(vae, x, seed)
    except ProbvaeError as error:
        return NotComputed(OBSERVED, str(error))
    return _result(Pairs(vae, truth.z, x), num_draws, seed, OBSERVED, f"{truth.method} at the data")


def _result(pairs: Pairs, num_draws: int, seed: int, section: str, source: str) -> CalibrationResult:
    found: Measures = measure(pairs, num_draws, seed)
    return CalibrationResult(
        rank=found.rank,
        density_level=found.density_level,
        tarp_level=found.tarp_level,
        log_weight_rank=found.log_weight_rank,
        score=found.score,
        scale=found.scale,
        prior_scale=_prior_scale(pairs.vae),
        score_p_value=mean_p_value(found.score_sums, len(found.score)),
        spread_p_value=spread_p_value(found.score_sums, len(found.score)),
        c2st=paired_c2st(found.features, found.drawn_features),
        num_draws=num_draws,
        section=section,
        source=source,
    )


@torch.no_grad()
def _prior_scale(vae: VAE) -> Tensor:
    """The prior's standard deviations (d,); over all data where each has a prior of its own."""
    prior = vae.model.prior()
    mean, variance = mean_and_variance(prior)
    if prior.batch_shape:
        variance = variance.mean(0) + mean.var(0, correction=0)
    return variance.double().sqrt()


def _not_amortised(vae: VAE) -> str | None:
    if vae.guide.amortized:
        return None
    return (
        f"{type(vae.guide).__name__} is not amortised: it has no posterior for data other than those that it was "
        "fitted to"
    )


def _check_counts(num_pairs: int, name: str, num_draws: int) -> None:
    check_count(num_draws, "num_draws", least=20)
    if name == "num_simulations":
        check_count(num_pairs, name, least=20)
    elif num_pairs < 20:
        raise ArgumentError(f"{name}: expected at least 20 data, got {num_pairs}. Fewer cannot show anything.")
