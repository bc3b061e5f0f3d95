"""log p(x) by the best method that the model allows, and the kind of number that it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probvae.errors import ArgumentError, unknown_name
from probvae.inference.densities.non_finite import raise_as_non_finite
from probvae.inference.evaluation.memory import limited_memory
from probvae.inference.evidence.annealing import annealed_log_evidence
from probvae.inference.evidence.importance_sampling import importance_log_evidence
from probvae.inference.evidence.prior_support import is_everywhere
from probvae.inference.evidence.quadrature import QuadratureError, quadrature
from probvae.inference.linear.closed_form_model import has_exact_posterior
from probvae.inference.linear.exact import exact_log_evidence
from probvae.inference.pair import VAE, check_data

METHODS = {
    "auto": "the highest rung that the model allows",
    "exact": "closed form: linear decoder, Gaussian noise, a prior of Gaussians",
    "quadrature": "adaptive integration over z, for latent_dim <= 2",
    "annealed": "annealed importance sampling from the guide",
    "importance": "importance sampling from the guide",
}
MAX_QUADRATURE_DIM = 2
_QUADRATURE_TOLERANCE = 1e-4  # nats


@dataclass(frozen=True)
class Estimate:
    """``value`` (N,) and ``standard_error`` (N,) in nats per datum, with the ``method`` and the ``kind`` of number.

    ``kind`` is ``"exact"`` (the standard error is then a numerical error: zero, or quadrature's own estimate),
    ``"estimate"`` (quadrature that did not reach its tolerance, smoothed weights) or ``"lower bound"``: its expectation
    is at most log p(x), because it is the log of a mean of unbiased weights. A single value may lie above log p(x), and
    does so in up to half of all cases. log p(x) is within two standard errors for about 95 of 100 data, on either side.
    """

    value: Tensor
    standard_error: Tensor
    method: str
    kind: str


@raise_as_non_finite()
def log_evidence(
    vae: VAE,
    x: Tensor,
    method: str = "auto",
    *,
    num_samples: int = 1000,
    seed: int = 0,
    memory_limit: int | None = None,
) -> Estimate:
    r"""log p(x) = log E_{p(z)} p(x|z) of each datum.

    ``method="auto"`` takes the highest rung that the model allows: closed form, quadrature (d <= 2), annealed
    importance sampling, or importance sampling where the prior has ends or is one of angles. A posterior that no grid
    covers goes to the next rung. A method that is named is used or refused, never replaced; the result says which it
    was.
    ``x`` is (N, D); ``num_samples`` counts the draws of ``"importance"``; ``memory_limit`` is in bytes, see
    :func:`~probvae.inference.evaluation.limited_memory`.

    Raises :class:`~probvae.errors.NotLinearGaussianError` for ``"exact"`` where there is no closed form and
    :class:`~probvae.errors.ArgumentError` for ``"quadrature"`` with d > 2 or an unknown method;
    :class:`~probvae.errors.NonFiniteError` where data overflow in the networks.
    Source: see :func:`~probvae.inference.exact.exact_log_evidence`, :func:`~probvae.inference.quadrature.quadrature`,
    :func:`~probvae.inference.annealing.annealed_log_evidence`.

    >>> import probvae
    >>> log_evidence(probvae.VAE.example(), torch.zeros(5, 3)).method
    'exact'
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    check_data(vae, x)
    with limited_memory(memory_limit):
        return _log_evidence(vae, x, method, num_samples, seed)


def _log_evidence(vae: VAE, x: Tensor, method: str, num_samples: int, seed: int) -> Estimate:
    if (found := vae.groups(len(x))) is not None:
        parts = [_log_evidence(vae.at(rows[:1]), x[rows], method, num_samples, seed) for rows in found]
        return joined_estimates(parts, found)
    if method == "auto":
        return _best(vae, x, num_samples, seed)
    return _by_method(vae, x, method, num_samples, seed)


def _best(vae: VAE, x: Tensor, num_samples: int, seed: int) -> Estimate:
    """The highest rung that holds: a posterior that no grid covers is left to the next one."""
    chosen = best_method(vae)
    if chosen == "quadrature":
        try:
            return _by_method(vae, x, chosen, num_samples, seed)
        except QuadratureError:
            chosen = _best_sampler(vae)
    return _by_method(vae, x, chosen, num_samples, seed)


def _by_method(vae: VAE, x: Tensor, chosen: str, num_samples: int, seed: int) -> Estimate:
    if chosen == "exact":
        value = _exact(vae, x)
        return Estimate(value, torch.zeros_like(value), chosen, "exact")
    if chosen == "quadrature":
        result = quadrature(vae.model, x, tolerance=_QUADRATURE_TOLERANCE, guide=vae.guide)
        return Estimate(result.log_evidence, result.error, chosen, "exact" if result.converged.all() else "estimate")
    if chosen == "annealed":
        if not is_everywhere(vae.model):
            raise ArgumentError(
                "method: 'annealed' moves through all of R^d and needs a prior with a density there, got one with the "
                f"support {vae.model.prior().support}. Use 'importance'."
            )
        annealed = annealed_log_evidence(vae, x, seed=seed)
        return Estimate(annealed.log_evidence, annealed.standard_error, chosen, "lower bound")
    sampled = importance_log_evidence(vae, x, num_samples, seed)
    return Estimate(sampled.log_evidence, sampled.standard_error, chosen, "lower bound")


def joined_estimates(parts: Sequence[Estimate], rows: Sequence[Tensor]) -> Estimate:
    """The estimates (n,) of groups of data, whose row numbers are ``rows``, joined (N,) in the order of the data."""
    order = torch.cat(list(rows)).argsort()
    value, error = (torch.cat([getattr(part, name) for part in parts])[order] for name in ("value", "standard_error"))
    kinds = {part.kind for part in parts}
    method = ", ".join(dict.fromkeys(part.method for part in parts))
    return Estimate(value, error, method, kinds.pop() if len(kinds) == 1 else "estimate")


def best_method(vae: VAE) -> str:
    """The highest rung of the ladder for this model: "exact", "quadrature", "annealed" or "importance".

    Chains of annealing move through all of R^d, so a prior with ends, or of angles, is left to importance sampling.
    """
    if has_exact_posterior(vae.model):
        return "exact"
    return "quadrature" if vae.model.latent_dim <= MAX_QUADRATURE_DIM else _best_sampler(vae)


def _best_sampler(vae: VAE) -> str:
    return "annealed" if is_everywhere(vae.at(slice(1)).model) else "importance"


@torch.no_grad()
def _exact(vae: VAE, x: Tensor) -> Tensor:
    return exact_log_evidence(vae.model, x)
