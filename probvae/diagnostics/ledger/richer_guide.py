"""What a full covariance would win over a diagonal guide."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from probvae.diagnostics.ledger.gap import NUM_SAMPLES, Gap, GapResult, monte_carlo_error, paired_bounds
from probvae.foundation.checks import check_count
from probvae.inference.evaluation.refine import refine
from probvae.inference.guides.families import as_normal
from probvae.inference.linear.closed_form_model import has_exact_posterior
from probvae.inference.linear.exact import exact_posterior
from probvae.inference.pair import VAE


def full_covariance_gain(
    vae: VAE, x: Tensor, gap: GapResult, *, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> Gap | None:
    r"""How many nats the best normal with a full covariance wins over the best diagonal one, datum by datum.

    .. math:: \mathrm{ELBO}(q^*_{\text{full}}) - \mathrm{ELBO}(q^*_{\text{diagonal}})

    ``gap`` is the ledger of ``x`` (N, D) or of more data that begin with it; where it is in closed form, so is this.
    None for a guide that is not a diagonal normal, or has one dimension. Nats per datum; both bounds at the same draws.

    Raises what :func:`~probvae.refine` raises.

    >>> import probvae
    >>> vae, x = probvae.VAE.example(), torch.zeros(5, 3)
    >>> gap = probvae.posterior_gap(vae, x)
    >>> bool((full_covariance_gain(vae, x, gap).value == gap.approximation.value).all())
    True
    """
    check_count(num_samples, "num_samples", least=2)
    with torch.no_grad():
        normal = as_normal(vae.guide.distribution(x))
    if normal is None or normal[2] or normal[0].shape[-1] == 1:
        return None
    if gap.refined is None and _posterior_is_normal(vae, x):  # a full covariance wins all
        return Gap(gap.approximation.value[: len(x)], gap.approximation.standard_error[: len(x)])
    full = refine(vae, x, seed=seed, full_covariance=True).guide
    diagonal = refine(vae, x, seed=seed).guide if gap.refined is None else gap.refined
    first, second = paired_bounds(vae, diagonal, full, x, num_samples, seed)
    return Gap(second.mean(0) - first.mean(0), monte_carlo_error(second - first))


@torch.no_grad()
def _posterior_is_normal(vae: VAE, x: Tensor) -> bool:
    model = vae.at(slice(1)).model
    return has_exact_posterior(model) and isinstance(exact_posterior(model, x[:1]), MultivariateNormal)
