"""A guide with several modes."""

from typing import Self

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from probvae.foundation.checks import check_count
from probvae.inference.encoders import MLPEncoder
from probvae.inference.guides._mixture_of_normals import MixtureOfNormals
from probvae.inference.guides.base import AmortizedGuide
from probvae.inference.guides.diagonal_guide import diagonal_normal
from probvae.inference.guides.full_covariance_guide import full_normal
from probvae.models.cholesky import check_covariance, num_dependences

# The distance between first means, in prior scales. Components that begin far from the posterior lose their weight
# before they get there.
_FIRST_DISTANCE = 0.3


class MixtureGuide(AmortizedGuide, name="mixture"):
    r"""Mixture of K normals, q_x(z) = sum_k pi_k(x) N(g_k(x), L_k(x) L_k(x)^T), with reparameterised draws.

    .. math:: q_x(z) = \sum_{k=1}^K \pi_k(x) \, \mathcal{N}(z; g_k(x), L_k(x) L_k(x)^T), \qquad
              \pi(x) = \operatorname{softmax}(l(x))

    For posteriors with several modes, with skew or with curvature. Its draws are differentiated implicitly, so that
    every objective takes it; first derivatives only. It begins with equal weights, unit covariances, and means a little
    apart: components that began at one place would get the same gradient and stay together.

    Parameters: ``logits`` (K), ``loc`` (K d), ``log_scale`` (K d) and, with ``covariance="full"``, ``dependence``
    (K d (d - 1) / 2) are linear heads on the features of ``encoder``; the scales are standard deviations in the
    units of z, kept within exp(+-10). ``num_features`` is needed only for an encoder without that attribute.
    Raises :class:`~probvae.errors.ArgumentError` for counts below one, and
    :class:`~probvae.errors.UnknownNameError` for another ``covariance``.
    Source: Graves (2016), arXiv:1607.05690; Figurnov, Mohamed and Mnih (2018), arXiv:1805.08498, section 3.2;
    Bishop et al. (1998), "Approximating posterior distributions in belief networks using mixtures".

    >>> import torch
    >>> guide = MixtureGuide(MLPEncoder(data_dim=3, hidden=(8,)), latent_dim=2, num_components=3)
    >>> guide.distribution(torch.zeros(5, 3)).rsample().shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: int,
        num_components: int = 2,
        covariance: str = "diagonal",
        num_features: int | None = None,
    ) -> None:
        super().__init__(encoder, latent_dim, num_features)
        check_count(num_components, "num_components")
        check_covariance(covariance)
        self.num_components, self.covariance = num_components, covariance
        self.logits = self.zero_head(num_components)
        self.loc = self.linear_head(num_components * latent_dim)
        _begin_apart(self.loc, num_components)
        self.log_scale = self.zero_head(num_components * latent_dim)
        size = num_components * num_dependences(latent_dim, covariance)
        self.dependence = self.zero_head(size) if size else None

    def heads(self) -> list[nn.Linear]:
        return [head for head in (self.logits, self.loc, self.log_scale, self.dependence) if head is not None]

    def member(self, parameters: Tensor) -> dist.TorchDistribution:
        k, d = self.num_components, self.latent_dim
        sizes = [d, d, num_dependences(d, self.covariance)]
        logits, *blocks = parameters.split([k, *(k * size for size in sizes)], dim=-1)
        each = torch.cat([block.unflatten(-1, (k, size)) for block, size in zip(blocks, sizes, strict=True)], dim=-1)
        components = full_normal(each) if self.covariance == "full" else diagonal_normal(each)
        return MixtureOfNormals(dist.Categorical(logits=logits), components)

    @classmethod
    def example(cls) -> Self:
        return cls(MLPEncoder(data_dim=3, hidden=(5,)), latent_dim=2, num_components=3, covariance="full")


@torch.no_grad()
def _begin_apart(loc: nn.Linear, num_components: int) -> None:
    """One function of x for all means, and an offset for each: with a function for each, the worst would be lost."""
    first = loc.weight.chunk(num_components)[0]
    loc.weight.copy_(first.repeat(num_components, 1))
    nn.init.normal_(loc.bias, std=_FIRST_DISTANCE)
