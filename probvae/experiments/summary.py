"""The numbers of a run on its held-out data: bounds, c, the squared error, and the ledger of gaps."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from probvae.data import Dataset
from probvae.diagnostics import GapResult
from probvae.diagnostics.ledger.gap import LEDGER_DATA, check_density
from probvae.diagnostics.ledger.unsplit import UnsplitLedger, ledger_or_total
from probvae.diagnostics.verdicts import mean_with_error
from probvae.errors import FitError, NonFiniteError, ProbvaeError
from probvae.experiments.recipe_data import binarized
from probvae.foundation.seed import isolated_seed
from probvae.inference import (
    FreeGuide,
    Objective,
    bound,
    equivalent_variance,
    posterior_mean,
    reconstruction_error,
)
from probvae.inference.densities.non_finite import raise_as_non_finite, short_reason
from probvae.inference.evaluation.refine import refine
from probvae.inference.evidence.log_evidence import best_method
from probvae.inference.pair import VAE
from probvae.models import GaussianLikelihood

# Draws a datum for the bound that is reported
NUM_SAMPLES = 32
# The ledger that ends a fit is a first look, and says of how many data: the fit of the digits takes less time than that
# of all held-out data would, which `probvae gap` and `probvae report` take. The two agree within their errors.
_FIRST_LEDGER_DATA = {**LEDGER_DATA, "quadrature": 150}


def evaluate(vae: VAE, data: Dataset, seed: int) -> dict[str, Any]:
    """The bound on ``data`` and its parts (nats per datum, standard errors over data), c, and the squared error.

    Raises :class:`~probvae.errors.FitError` where numbers that are not finite arise on the way.
    """
    with isolated_seed(seed), _refused_as_failed():
        x = binarized(data, seed)
        values = bound(vae, x, NUM_SAMPLES)
        error = reconstruction_error(vae, x)
    return {
        "elbo": mean_with_error(values.elbo),
        "log_likelihood": mean_with_error(values.log_likelihood),
        "kl": mean_with_error(values.kl),
        "is_bound": not getattr(vae.model.likelihood, "allow_grey", False),
        **variance_summary(vae, x),
        "likelihood": likelihood_summary(vae),
        "point": vae.model.likelihood.point_name,
        "reconstruction_error": mean_with_error(error),
    }


@contextmanager
def _refused_as_failed() -> Iterator[None]:
    """Numbers that overflow, as the error of a fit."""
    try:
        with raise_as_non_finite():
            yield
    except NonFiniteError as error:
        raise FitError(
            f"the numbers overflow on the held-out data ({short_reason(error)}). The weights are kept. Look for "
            "outliers, use scaling='standardize', or a smaller learning_rate."
        ) from error


def ledger_of(
    vae: VAE, data: Dataset, seed: int, truth: str = "auto", num_data: int | None = None
) -> tuple[GapResult | UnsplitLedger | None, dict[str, Any]]:
    """The ledger of gaps on the first data, and its means; or None and the reason why there is none.

    For a guide whose family cannot be searched it is the total alone, with the reason.
    """
    method = best_method(vae) if truth == "auto" else truth
    rows = slice(num_data or LEDGER_DATA.get(method, LEDGER_DATA["annealed"]))
    num_there = data.num_data
    vae, x = vae.at(rows), binarized(data, seed)[rows]
    try:
        check_density(vae)
        with _refused_as_failed():
            gap = ledger_or_total(vae, x, truth=truth, seed=seed)
    except ProbvaeError as error:  # a posterior that no grid covers, among others
        return None, {"not_computed": str(error)}
    entries = [gap.total.value, gap.truth.value, *([gap.approximation.value] if isinstance(gap, GapResult) else [])]
    num_bad = int((~torch.stack(entries).isfinite()).any(0).sum())
    if num_bad:
        return None, {"not_computed": f"log p(x) or a bound of it is not finite for {num_bad} of {len(x)} data"}
    # an error like that is a bound on what may hide between the nodes: the integral is not known at all
    unknown = gap.truth.standard_error > (1 + gap.truth.value.abs())
    if gap.truth.method == "quadrature" and unknown.any():
        return None, {
            "not_computed": f"log p(x) is not known for {int(unknown.sum())} of {len(x)} data: quadrature gives it to "
            f"{float(gap.truth.standard_error.max()):.2g} nats"
        }
    return gap, {**gap.summary(), "num_there": num_there}


def first_ledger(vae: VAE, data: Dataset, seed: int) -> tuple[GapResult | UnsplitLedger | None, dict[str, Any]]:
    """:func:`ledger_of` on as few data as a fit can wait for."""
    return ledger_of(vae, data, seed, num_data=_FIRST_LEDGER_DATA.get(best_method(vae), _FIRST_LEDGER_DATA["annealed"]))


def weight_summary(vae: VAE, objective: Objective) -> dict[str, float]:
    """The KL's weight beta where it is not one, and for a fixed c the variance whose ELBO it amounts to."""
    if objective.beta == 1:
        return {}
    summary = {"beta": objective.beta}
    likelihood = vae.model.likelihood
    # another objective than the ELBO, or a c that is learned with it, has no such equivalent
    weighted_elbo = objective.registered_name in ("elbo", "analytic-kl", "stl") and not objective.free_bits
    if isinstance(likelihood, GaussianLikelihood) and likelihood.mode == "fixed" and weighted_elbo:
        c = float(likelihood.fixed_variance)
        summary["equivalent_variance"] = equivalent_variance(objective.beta, c)
    return summary


def likelihood_summary(vae: VAE) -> dict[str, float]:
    """The numbers of the likelihood beside c: scales, dispersions; the mean where there are several."""
    likelihood = vae.model.likelihood
    if isinstance(likelihood, GaussianLikelihood):
        return {}  # its c has a place of its own
    with torch.no_grad():
        return {name: float(value.mean()) for name, value in likelihood.own_parameters().items()}


def variance_summary(vae: VAE, x: Tensor) -> dict[str, float | None]:
    """c at the data ``x`` (N, D), averaged, and Rocca's C = 1/(2c); None for a likelihood without a variance."""
    likelihood = vae.model.likelihood
    if not isinstance(likelihood, GaussianLikelihood):
        return {"variance": None, "squared_error_weight": None}
    with torch.no_grad():
        c = float(likelihood.variance(vae.model.decode(posterior_mean(vae, x))).mean())
    return {"variance": c, "squared_error_weight": 1 / (2 * c)}


def check_summary(summary: Mapping[str, Any]) -> None:
    """Raise :class:`~probvae.errors.FitError` where a number of the summary is not finite."""
    for name, value in _numbers(summary):
        if not math.isfinite(value):
            raise FitError(
                f"{name}: expected a finite number on the held-out data, got {value:g}. The weights are kept. Use "
                "scaling='standardize', or a smaller learning_rate."
            )


def _numbers(entry: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested tables, with their names; a mean has the name of its table."""
    if isinstance(entry, Mapping):
        for key, inner in entry.items():
            yield from _numbers(inner, name if key == "value" else f"{name}.{key}".lstrip("."))
    elif isinstance(entry, int | float):
        yield name, entry


def for_other_data(vae: VAE, data: Dataset, seed: int) -> VAE:
    """The VAE to evaluate with: a guide that is not amortised gets its best members for these data."""
    if vae.guide.amortized:
        return vae
    x = binarized(data, seed)
    start = FreeGuide(vae.model.latent_dim, vae.model.data_dim, len(x), vae.guide.arguments["covariance"])
    return VAE(vae.model, refine(VAE(vae.model, start.to(x).start_from(x)), x, seed=seed).guide)
