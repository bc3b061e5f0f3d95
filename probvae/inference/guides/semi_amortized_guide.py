"""The encoder's q_x, improved by a few steps for each datum."""

from typing import Any, Self

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from probvae.foundation.checks import check_count, check_positive
from probvae.inference.encoders import MLPEncoder
from probvae.inference.guides.base import AmortizedGuide, Guide
from probvae.inference.guides.diagonal_guide import DiagonalGuide
from probvae.inference.guides.families import NormalFamily, State, as_normal, even_draws
from probvae.inference.guides.full_covariance_guide import FullCovarianceGuide
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, StandardNormalPrior
from probvae.models.cholesky import check_covariance

_STARTS: dict[str, type[AmortizedGuide]] = {"diagonal": DiagonalGuide, "full": FullCovarianceGuide}
_NUM_DRAWS = 16
# Adam's: its memory must be short beside a handful of steps
_DECAYS = (0.8, 0.95)
# the improvement is part of every use of the guide
_MOST_STEPS = 10_000


class SemiAmortizedGuide(Guide, name="semi-amortized"):
    r"""Encoder's normal q_x, then K gradient steps on the ELBO of each datum.

    .. math:: \lambda_0 = \text{encoder}(x), \qquad
              \lambda_{k+1} = \lambda_k + \eta\, \text{Adam}(\nabla_\lambda \widehat{\mathrm{ELBO}}(x; \lambda_k)),
              \qquad q_x(z) = q(z; \lambda_K)

    It closes a part of the amortisation gap, for K times the cost. The steps use 16 standard normal draws that are
    always the same, so that q_x is a function of x. They are measured in standard deviations of the encoder's q_x.
    The encoder is trained by the gradient at lambda_K, passed to lambda_0 as it is (a first-order approximation; Kim et
    al. differentiate through the steps).

    Parameters: ``covariance`` is ``"diagonal"`` or ``"full"``; ``num_steps`` K; ``learning_rate`` eta; ``model`` the
    very model that the VAE has.
    Raises :class:`~probvae.errors.UnknownNameError` for another covariance.
    Source: Kim, Wiseman, Miller, Sontag and Rush (2018), arXiv:1802.02550, section 3.

    >>> guide = SemiAmortizedGuide.example()
    >>> guide.distribution(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: int,
        model: LatentModel,
        covariance: str = "diagonal",
        num_steps: int = 8,
        learning_rate: float = 0.1,
    ) -> None:
        super().__init__(latent_dim)
        check_count(num_steps, "num_steps", most=_MOST_STEPS)
        check_positive(learning_rate, "learning_rate")
        check_covariance(covariance)
        self.start = _STARTS[covariance](encoder, latent_dim)
        self.num_steps, self.learning_rate = num_steps, learning_rate
        # nn.Module does not look into a tuple: the parameters are the model's
        self._model = (model,)
        self.register_buffer(
            "noise", even_draws(_NUM_DRAWS, latent_dim).to(torch.get_default_dtype()), persistent=False
        )

    noise: Tensor

    @property
    def encoder(self) -> nn.Module:
        """The trunk of the start."""
        return self.start.encoder

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        normal = as_normal(self.start.distribution(x))
        assert normal is not None  # both families are
        loc, factor, full = normal
        better_loc, better_factor = self._climb(x, (loc.detach(), factor.detach()), full)
        # the value of the improved parameters, the gradient of the encoder's
        loc, factor = loc + (better_loc - loc).detach(), factor + (better_factor - factor).detach()
        if full:
            return dist.MultivariateNormal(loc, scale_tril=factor)
        return dist.Normal(loc, factor.diagonal(dim1=-2, dim2=-1)).to_event(1)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Behind ``.to()`` and ``.double()``: the model comes along, or its densities could not be taken here."""
        super()._apply(*args, **kwargs)
        self._model[0]._apply(*args, **kwargs)
        return self

    def _climb(self, x: Tensor, start: State, full: bool) -> State:
        """lambda_K as mean and factor, without gradient."""
        model = self._model[0]
        family = NormalFamily(model, self.latent_dim, full, like=x)
        state: State = tuple(part.unsqueeze(0) for part in start)
        noise = self.noise[:, None, None].expand(-1, *state[0].shape)
        offsets = [offset.requires_grad_() for offset in family.zeros(state)]
        optimizer = torch.optim.Adam(offsets, lr=self.learning_rate, betas=_DECAYS)
        for _ in range(self.num_steps):
            with torch.enable_grad():
                value = family.at_noise(family.moved(state, offsets), x, noise).mean(0).sum()
                gradients = torch.autograd.grad(-value, offsets, allow_unused=True)
            for offset, gradient in zip(offsets, gradients, strict=True):
                offset.grad = gradient
            optimizer.step()
        with torch.no_grad():
            loc, factor = family.moved(state, offsets)
        return loc[0], factor[0]

    @classmethod
    def example(cls) -> Self:
        model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3, variance=0.5))
        return cls(MLPEncoder(3, hidden=(5,)), 2, model)
