"""A prior that depends on covariates."""

from typing import Self

from pyro import distributions as dist
from torch import Tensor, nn

from probvae.errors import ArgumentError
from probvae.foundation.checks import check_count
from probvae.models.priors.base import Prior


class ConditionalNormalPrior(Prior, name="conditional-normal"):
    r"""Normal whose mean and scale depend on covariates, p(z|y) = N(m(y), diag(s(y)^2)).

    .. math:: m(y) = A y + a, \qquad \log s(y) = B y + b

    For conditional models: ``LatentModel(..., covariates=...)``. It begins at N(0, I) for every y.

    Parameters: ``num_covariates``, the width of the encoded y; s is a standard deviation in the units of z.
    Raises :class:`~probvae.errors.ArgumentError` without y.
    Source: Sohn, Lee and Yan (2015), "Learning Structured Output Representation using Deep Conditional Generative
    Models", equation 4.

    >>> ConditionalNormalPrior(latent_dim=2, num_covariates=3).given(torch.zeros(5, 3)).batch_shape
    torch.Size([5])
    """

    def __init__(self, latent_dim: int, num_covariates: int) -> None:
        super().__init__()
        check_count(latent_dim, "latent_dim")
        check_count(num_covariates, "num_covariates")
        self.latent_dim, self.num_covariates = latent_dim, num_covariates
        self.loc, self.log_scale = (_zero(nn.Linear(num_covariates, latent_dim)) for _ in range(2))

    def given(self, y: Tensor) -> dist.TorchDistribution:
        """p(z|y) at the encoded ``y``: batch_shape (N,) for ``y`` (N, C), and () for one row (1, C)."""
        y = (y[0] if len(y) == 1 else y).to(self.loc.weight.dtype)
        return dist.Normal(self.loc(y), self.log_scale(y).exp()).to_event(1)

    def forward(self) -> dist.TorchDistribution:
        raise ArgumentError("prior: p(z|y) is conditional, and y was not given. Use model.given(y) or prior.given(y).")

    @classmethod
    def example(cls) -> Self:
        return cls(latent_dim=2, num_covariates=3)


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
