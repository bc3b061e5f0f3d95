"""The pictures of latent usage."""

import math

import numpy as np
from torch import Tensor

from probvae.diagnostics.usage.latent_usage import LatentUsageResult
from probvae.diagnostics.verdicts import mean_with_error
from probvae.report.figures.latent_usage_figure import aggregate_posterior, kl_by_dimension
from probvae.report.illustration import Illustration
from probvae.report.tensors import as_double


def illustrations(result: LatentUsageResult) -> list[Illustration]:
    """KL by dimension, and the aggregate posterior against the prior in the two latents that carry most."""
    means = [mean_with_error(column) for column in result.dimension_kl.unbind(1)]
    kl, errors = (np.array([mean[key] for mean in means], dtype=float) for key in ("value", "standard_error"))
    bars = kl_by_dimension(kl, errors, result.active.tolist())
    most_used = sorted(np.argsort(-kl, kind="stable")[:2].tolist())
    plane = aggregate_posterior(as_double(result.z), as_double(result.prior_z), most_used)
    return [
        Illustration("latent-kl", bars, _KL + _MOMENTS * (result.dimension_method == "moments")),
        Illustration("aggregate-posterior", plane, _AGGREGATE.format(chosen=_chosen(len(kl))) + _information(result)),
    ]


def _chosen(latent_dim: int) -> str:
    return f", in the two of {latent_dim} latents that carry most" if latent_dim > 2 else ""


def _information(result: LatentUsageResult) -> str:
    if result.mutual_information is None or result.aggregate_kl is None:
        return ""
    return (
        f" Of the rate, {_told(result.kl)} nats per datum, {_told(result.mutual_information)} say which datum it is "
        f"(at most {math.log(len(result.kl)):.2f}, the logarithm of the number of data), and "
        f"{_told(result.aggregate_kl)} are the distance of all data together from the prior."
    )


def _told(values: Tensor) -> str:
    mean = mean_with_error(values)
    return f"{mean['value']:.3g} ± {mean['standard_error']:.2g}"


_KL = (
    "What a datum says about each latent, in nats: the KL between its posterior and the prior, averaged over the data, "
    "with bars of two standard errors. How to read it: grey latents are off, their posterior is the same for all data. "
    "A good one has no grey bars, or as many as the theory says for a linear model."
)
_MOMENTS = " Each KL is that of two normals with the right means and variances."
_AGGREGATE = (
    "A draw of the posterior of each datum (blue) and draws of the prior (orange){chosen}. How to read it: orange "
    "where there is no blue is where samples come from and no datum does; blue where there is no orange is data that "
    "the model hardly makes. Good ones look the same."
)
