"""What is computed after each epoch of a fit: c, and the bound of the validation data."""

import math

import torch
from torch import Tensor

from probvae.inference.evaluation.bounds import bound
from probvae.inference.evaluation.variance import VARIANCE_SUBSET, outputs_for_variance, squared_error_sums
from probvae.inference.pair import VAE
from probvae.inference.training.minibatches import Blocks, Source
from probvae.inference.training.processes import Ranks
from probvae.models import GaussianLikelihood


def set_optimal_variance(vae: VAE, x: Source, ranks: Ranks) -> None:
    """Give a likelihood with ``variance="optimal"`` the c that is best for all of ``x``; others stay."""
    likelihood = vae.model.likelihood
    if isinstance(likelihood, GaussianLikelihood) and likelihood.mode == "optimal":
        parts = ((vae.at(rows), block) for rows, block in x.blocks())
        error, num_observed = ranks.sums(2, squared_error_sums, parts)
        likelihood.set_variance(error / num_observed)


@torch.no_grad()
def mean_variance(vae: VAE, x: Source) -> float | None:
    """c, averaged where there are several; None where there is none."""
    likelihood = vae.model.likelihood
    if not isinstance(likelihood, GaussianLikelihood):
        return None
    return float(likelihood.variance(outputs_for_variance(vae, x.head(VARIANCE_SUBSET))).mean())


def validation_bound(vae: VAE, validation: Blocks | None, ranks: Ranks) -> dict[str, float]:
    """The ELBO of the validation data with its standard error, and the KL, in nats per datum."""
    if validation is None:
        return {}
    parts = ((vae.at(rows), x) for rows, x in validation.blocks())
    num_data = len(validation)
    elbo, squared, kl = (total / num_data for total in ranks.sums(3, _bound_sums, parts))
    variance = max(squared - elbo * elbo, 0.0)  # Python's power raises an error where the product is infinite
    return {
        "validation_elbo": elbo,
        "validation_kl": kl,
        "validation_standard_error": math.sqrt(variance / max(num_data - 1, 1)),
    }


def _bound_sums(vae: VAE, rows: Tensor) -> Tensor:
    """The sums of the ELBO, of its square and of the KL."""
    values = bound(vae, rows)
    elbo = values.elbo.double()
    return torch.stack([elbo.sum(), elbo.square().sum(), values.kl.double().sum()])
