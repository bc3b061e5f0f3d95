"""Latent usage: what each latent carries, and whether the data fill the prior."""

import math
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from probvae.diagnostics.usage.latent_usage import LatentUsageResult
from probvae.diagnostics.verdicts import mean_with_error, with_error
from probvae.report.figures.latent_usage_figure import aggregate_posterior, kl_by_dimension
from probvae.report.sections.base import Drawn, Section, Subject, as_double


def figures(result: LatentUsageResult, subject: Subject) -> Iterator[Drawn]:
    """KL by dimension, and the aggregate posterior against the prior in the two latents that carry most."""
    means = [mean_with_error(column) for column in result.dimension_kl.unbind(1)]
    kl, errors = (np.array([mean[key] for mean in means], dtype=float) for key in ("value", "standard_error"))
    moments = " Each KL is that of two normals with the right means and variances."
    yield Drawn(
        "latent-kl",
        kl_by_dimension(kl, errors, result.active.tolist()),
        {"moments": moments if result.dimension_method == "moments" else ""},
    )
    most_used = sorted(np.argsort(-kl, kind="stable")[:2].tolist())
    chosen = f", in the two of {len(kl)} latents that carry most" if len(kl) > 2 else ""
    yield Drawn(
        "aggregate-posterior",
        aggregate_posterior(as_double(result.z), as_double(result.prior_z), most_used),
        {"chosen": chosen, "information": _information(result)},
    )


def _information(result: LatentUsageResult) -> str:
    if result.mutual_information is None or result.aggregate_kl is None:
        return ""
    return (
        f" The rate is {_told(result.kl)} nats per datum: {_told(result.mutual_information)} of them say which datum "
        f"it is (at most {math.log(len(result.kl)):.2f}, the logarithm of the number of data), and "
        f"{_told(result.aggregate_kl)} are the distance of all data together from the prior."
    )


def _told(values: Tensor) -> str:
    mean = mean_with_error(values)
    return with_error(mean["value"] or 0.0, mean["standard_error"])


LATENT_USAGE = Section(
    name="latent_usage",
    title="Latent usage",
    question="Which latents carry something of x, how much, and do all data together fill the prior?",
    labels={
        "rate": "rate: KL(q ‖ p), nats per datum",
        "rate_method": "the rate was computed by",
        "dimension_kl": "KL of a single latent, nats per datum, latent",
        "dimension_kl_method": "the KL of single latents was computed by",
        "active_units.value": "active latents: the posterior mean varies with x",
        "active_units.threshold": "a latent is active from this variance of its posterior mean on",
        "activity": "variance of the posterior mean, in prior variances, latent",
        "num_active_directions": "active directions of the latent space",
        "linear_theory": "active directions by theory (linear models only)",
        "linear_theory.variance": "theory for linear models: noise variance c",
        "linear_theory.largest": "theory for linear models: largest eigenvalue of the data's covariance",
        "linear_theory.expected": "theory for linear models: active directions at the optimum",
        "linear_theory.least": "theory for linear models: fewest active directions, chance allowed for",
        "linear_theory.most": "theory for linear models: most active directions, chance allowed for",
        "mutual_information": "information I(x; z), nats: low estimate",
        "mutual_information_upper": "information I(x; z), nats: high estimate",
        "aggregate_kl": "distance of all data together from the prior, KL(q(z) ‖ p(z)), nats",
        "log_num_data": "log N: the low estimate of I(x; z) cannot exceed it",
        "aggregate_test.p_value": "test of all data together against the prior: p-value, not adjusted",
        "aggregate_test.num_permutations": "test of all data together against the prior: permutations",
        "num_data": "number of data",
        "num_samples": "draws a datum",
        "num_prior_draws": "draws of the prior",
    },
    checks={"collapse": "latents that are off", "aggregate_posterior": "all data together against the prior"},
    captions={
        "latent-kl": "What a datum says about each latent, in nats: the KL between its posterior and the prior, "
        "averaged over the data, with bars of two standard errors. How to read it: grey latents are off, their "
        "posterior is the same for all data. A good one has no grey bars, or as many as the theory says for a linear "
        "model.{moments}",
        "aggregate-posterior": "A draw of the posterior of each datum (blue) and draws of the prior (orange){chosen}. "
        "How to read it: orange where there is no blue is where samples come from and no datum does; blue where there "
        "is no orange is data that the model hardly makes. Good ones look the same.{information}",
    },
    figures=figures,
)
