"""q(z|x, y) at known y, as a guide that reads x alone."""

from typing import Self

from pyro.distributions import TorchDistribution
from torch import Tensor

from probvae.errors import ConfigError
from probvae.inference.guides.base import Guide, LocalGuide
from probvae.models.covariates import joined


class ConditionedGuide(Guide):
    """A guide that reads [x, y], at known ``y`` (N or 1, C); it shares the guide's weights."""

    y: Tensor

    def __init__(self, guide: Guide, y: Tensor) -> None:
        super().__init__(guide.latent_dim)
        self.guide = guide
        self.register_buffer("y", y, persistent=False)

    @property
    def amortized(self) -> bool:  # type: ignore[override]  # of a class, but here of the guide inside
        """True where the guide inside is amortised."""
        return self.guide.amortized

    def distribution(self, x: Tensor) -> TorchDistribution:
        return self.guide.distribution(joined(x, self.y))

    @classmethod
    def example(cls) -> Self:
        raise ConfigError(f"{cls.__name__}: made by vae.given(y), not by itself.")


class ConditionedLocalGuide(ConditionedGuide, LocalGuide):
    """A conditioned guide with local parameters, whose family stays known."""

    guide: LocalGuide

    def local_parameters(self, x: Tensor) -> Tensor:
        return self.guide.local_parameters(joined(x, self.y))

    def member(self, parameters: Tensor) -> TorchDistribution:
        return self.guide.member(parameters)

    distribution = LocalGuide.distribution


def conditioned(guide: Guide, y: Tensor) -> ConditionedGuide:
    """The ``guide`` at known ``y`` (N or 1, C)."""
    return (ConditionedLocalGuide if isinstance(guide, LocalGuide) else ConditionedGuide)(guide, y)
