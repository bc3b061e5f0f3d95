"""A mixture of normals whose draws can be differentiated."""

from collections.abc import Sequence
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor


class MixtureOfNormals(dist.MixtureSameFamily):
    r"""q(z) = sum_k pi_k N(z; m_k, L_k L_k^T), whose draws have a gradient by implicit differentiation.

    A draw picks a component, which has no derivative. The distributional transform has one,

    .. math:: S_j(z) = F(z_j | z_{<j}) = \sum_k w_{kj} \Phi(\epsilon_{kj}), \qquad
              \epsilon_k = L_k^{-1} (z - m_k), \qquad w_{kj} \propto \pi_k \, q_k(z_{<j})

    is uniform whatever the parameters are, so that a draw moves with them along S(z) = const:

    .. math:: \frac{dz}{d\phi} = - \Big(\frac{\partial S}{\partial z}\Big)^{-1} \frac{\partial S}{\partial \phi}

    The value of ``rsample`` is that of ``sample``; it has first derivatives only. The components are normals:
    ``Independent(Normal, 1)`` or ``MultivariateNormal``. Where components lie far apart, the few draws between them
    carry the gradient of the weights, and its variance grows with the gap.
    Source: Graves (2016), arXiv:1607.05690; Figurnov, Mohamed and Mnih (2018), arXiv:1805.08498, section 3.2.

    >>> components = dist.Normal(torch.tensor([[-2.0], [1.0]]), 0.5).to_event(1)
    >>> MixtureOfNormals(dist.Categorical(torch.ones(2)), components).rsample().shape
    torch.Size([1])
    """

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of shape ``sample_shape + batch_shape + event_shape``, differentiable in all parameters."""
        z = self.sample(torch.Size(sample_shape))
        components: Any = self.component_distribution
        factor = getattr(components, "scale_tril", None)
        if factor is None:
            components = components.base_dist
            factor = torch.diag_embed(components.scale)
        return _with_gradient(z, self.mixture_distribution.logits, components.loc, factor)


def _with_gradient(z: Tensor, logits: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
    """The draws z (..., d) with the gradient of ``logits`` (..., K), ``loc`` (..., K, d), ``factor`` (..., K, d, d)."""
    scale = factor.diagonal(dim1=-2, dim2=-1)
    inverse = torch.linalg.solve_triangular(factor, torch.eye(z.shape[-1]).to(z), upper=False)
    noise = (inverse @ (z.unsqueeze(-2) - loc).unsqueeze(-1)).squeeze(-1)
    log_density = -0.5 * (noise.square() + torch.log(2 * torch.pi * scale.square()))
    # log pi_k q_k(z_<j) for j = 1 .. d + 1
    log_joint = torch.cat([logits.expand(noise.shape[:-1]).unsqueeze(-1), log_density], dim=-1).cumsum(-1)
    with torch.no_grad():
        weight, share = _rates(log_joint, log_density, noise)
        share = share * scale
        moved = torch.diag_embed(share) - (weight.unsqueeze(-1) * noise.unsqueeze(-2)).tril(-1)
        jacobian = (moved @ inverse).sum(-3)
    # linear in what depends on the parameters, with the derivatives of S as coefficients
    transform = (weight * log_joint[..., :-1] + share * noise).sum(-2)
    change = (transform - transform.detach()).unsqueeze(-1)
    return z - torch.linalg.solve_triangular(jacobian, change, upper=False, unitriangular=True).squeeze(-1)


def _rates(log_joint: Tensor, log_density: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    r"""dS_j over the conditional density q(z_j | z_<j), by log pi_k q_k(z_<j) and by L_kjj eps_kj; both (..., K, d).

    .. math:: w_{kj} (\Phi(\epsilon_{kj}) - S_j) / q(z_j|z_{<j}), \qquad w_{k,j+1}

    Divided by that density, the Jacobian of S has ones on its diagonal and stays of the order one in the tails.
    """
    log_weight = torch.log_softmax(log_joint[..., :-1], dim=-2)
    log_conditional = torch.logsumexp(log_weight + log_density, dim=-2, keepdim=True)
    # Phi is one in the upper tail and has lost its digits: 1 - Phi is used there
    lower = (log_weight.exp() * _normal_cdf(noise)).sum(-2, keepdim=True) < 0.5
    sign = torch.where(lower, 1.0, -1.0).to(noise)
    tail = _normal_cdf(sign * noise)
    excess = sign * (tail - (log_weight.exp() * tail).sum(-2, keepdim=True))
    # a bound that only a draw in the middle of nowhere reaches: infinity times zero would spoil the whole batch
    largest = -0.5 * torch.log(torch.tensor(torch.finfo(noise.dtype).tiny)).item()
    rate = (log_weight - log_conditional).clamp(max=largest).exp() * excess
    return rate, torch.softmax(log_joint[..., 1:], dim=-2)


def _normal_cdf(value: Tensor) -> Tensor:
    # torch.special.ndtr takes one from 1 + erf in the lower tail: zero below -8.3
    return 0.5 * torch.erfc(-value / 2**0.5)
