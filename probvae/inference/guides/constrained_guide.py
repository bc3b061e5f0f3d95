"""A guide on a box."""

from typing import Self

from pyro import distributions as dist
from pyro.distributions import transforms
from torch import Tensor, nn

from probvae.errors import ArgumentError
from probvae.inference.encoders import MLPEncoder
from probvae.inference.guides.base import Guide, LocalGuide
from probvae.inference.guides.diagonal_guide import DiagonalGuide
from probvae.models import Prior, UniformHypercubePrior

# How far from the bounds q stays, as a share of the box: at a bound the density is no number
_MARGIN = 1e-6


class ConstrainedGuide(LocalGuide, name="constrained"):
    r"""Another guide, pushed into the box [low, high]^d by a sigmoid, for priors with bounds.

    .. math:: z = low + (high - low)\, \sigma(u), \qquad u \sim q_x(u), \qquad
              \log q_x(z) = \log q_x(u) - \sum_i \log \frac{(z_i - low)(high - z_i)}{high - low}

    Parameters: ``guide``, one with local parameters; ``low`` and ``high`` are the prior's, in the units of z. The
    scales of the inner guide are those of u, the logit of the place in the box.
    Raises :class:`~probvae.errors.ArgumentError` unless low < high, and for a guide of another kind.
    Source: Kucukelbir et al. (2017), "Automatic Differentiation Variational Inference", section 2.3.

    >>> import torch
    >>> guide = ConstrainedGuide(DiagonalGuide(MLPEncoder(3, hidden=(8,)), 2), low=0.0, high=1.0)
    >>> bool((guide.distribution(torch.zeros(5, 3)).sample() > 0).all())
    True
    """

    def __init__(self, guide: Guide, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(guide.latent_dim)
        if not low < high:
            raise ArgumentError(f"high: expected more than low={low!r}, got {high!r}.")
        if not isinstance(guide, LocalGuide):
            raise ArgumentError(
                f"guide: {type(guide).__name__} cannot be pushed into a box. Use 'diagonal', 'full-covariance', "
                "'mixture' or 'flow'."
            )
        self.guide, self.low, self.high = guide, low, high

    @property
    def encoder(self) -> nn.Module | None:
        """The inner guide's, where it has one."""
        return getattr(self.guide, "encoder", None)

    @property
    def amortized(self) -> bool:  # type: ignore[override]  # of a class, but here of the guide inside
        """True where the inner guide is amortised."""
        return self.guide.amortized

    def local_parameters(self, x: Tensor) -> Tensor:
        return self.guide.local_parameters(x)

    def member(self, parameters: Tensor) -> dist.TorchDistribution:
        margin = _MARGIN * (self.high - self.low)
        box = transforms.AffineTransform(self.low + margin, self.high - self.low - 2 * margin)
        return dist.TransformedDistribution(self.guide.member(parameters), [transforms.SigmoidTransform(), box])

    def start_from(self, x: Tensor) -> Self:
        self.guide.start_from(x)
        return self

    @classmethod
    def example(cls) -> Self:
        return cls(DiagonalGuide(MLPEncoder(data_dim=3, hidden=(5,)), latent_dim=2), low=-0.5, high=2.0)


def inside_support(guide: Guide, prior: Prior) -> Guide:
    """The guide, pushed into the prior's box where it has one."""
    if isinstance(prior, UniformHypercubePrior) and not isinstance(guide, ConstrainedGuide):
        return ConstrainedGuide(guide, prior.low, prior.high)
    return guide
