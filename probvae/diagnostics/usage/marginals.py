"""Each latent dimension by itself: the marginals of q_x and of the prior, and how far apart they are."""

from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from probvae.inference.densities.kl import has_analytic_kl
from probvae.inference.densities.moments import mean_and_variance


def marginals(p: Distribution) -> Distribution | None:
    """p(z_j) for each j: batch_shape of p followed by (d,), event_shape (); None where there is no closed form.

    >>> import torch
    >>> marginals(MultivariateNormal(torch.zeros(2), torch.diag(torch.tensor([4.0, 9.0])))).scale
    tensor([2., 3.])
    """
    if isinstance(p, Independent) and p.reinterpreted_batch_ndims == 1:
        return p.base_dist
    if isinstance(p, MultivariateNormal | LowRankMultivariateNormal):
        return Normal(p.loc, p.variance.sqrt())
    if isinstance(p, MixtureSameFamily):
        return _mixture_marginals(p)
    return None


def _mixture_marginals(p: MixtureSameFamily) -> Distribution | None:
    parts = marginals(p.component_distribution)
    if not isinstance(parts, Normal):
        return None
    loc, scale = parts.loc.mT, parts.scale.mT  # (..., d, K)
    logits = p.mixture_distribution.logits.unsqueeze(-2).expand(loc.shape)
    return MixtureSameFamily(Categorical(logits=logits), Normal(loc, scale))


def marginal_kl_method(q: Distribution, p: Distribution) -> str:
    """How :func:`marginal_kl` finds its numbers: "closed form", "draws" or "moments"."""
    one, other = marginals(q), marginals(p)
    if one is None or other is None:
        return "moments"
    return "closed form" if has_analytic_kl(one, other) else "draws"


def marginal_kl(q: Distribution, p: Distribution, z: Tensor) -> Tensor:
    r"""KL(q(z_j) || p(z_j)) of each dimension, (N, d) nats, for q and p of batch_shape (N,) and draws z (S, N, d) of q.

    In closed form where torch has one; by the draws where the marginal densities are known; and otherwise (flows) as
    the KL of the normals with the same means and variances,

    .. math:: \tfrac12 \Big( \frac{v_q + (m_q - m_p)^2}{v_p} - 1 - \log \frac{v_q}{v_p} \Big)

    which for a normal prior is a lower bound: of all densities with these moments the normal has the largest entropy.
    """
    one, other = marginals(q), marginals(p)
    if one is None or other is None:
        return kl_divergence(*(Normal(mean, variance.sqrt()) for mean, variance in map(mean_and_variance, (q, p))))
    if has_analytic_kl(one, other):
        return kl_divergence(one, other)
    return (one.log_prob(z) - other.log_prob(z)).mean(0)
