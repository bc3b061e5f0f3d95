"""Families of q(z; lambda) in which the best member for each datum is sought.

A state is a tuple of tensors (K, N, ...): K candidates for each of N data. A step moves it by offsets that are measured
in the state's own scale, so that one learning rate serves posteriors of every width.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from probvae.foundation.row_noise import RowNoise
from probvae.inference.guides.base import LocalGuide
from probvae.models import LatentModel

State = tuple[Tensor, ...]

_DRAWS_OF_A_CHECK = 256
_DRAWS_OF_A_SCALE = 32
# Few data take all draws in one pass, many a few: numbers of x, or of a layer, that a pass may have
_NUMBERS_AT_ONCE = 2**20
_LEAST_WIDTH, _LEAST_DRAWS = 64, 16


class LocalFamily(Protocol):
    """The operations of a family that a search for its best members needs; K starts for each of N data."""

    def prepared(self, state: State, x: Tensor, noise: RowNoise) -> State:
        """The state (K, N, ...) with its own scale brought up to date for ``x`` (N, D)."""

    def zeros(self, state: State) -> list[Tensor]:
        """Offsets (K, N, ...) that change nothing."""

    def moved(self, state: State, offsets: list[Tensor]) -> State:
        """The state (K, N, ...) moved by the offsets."""

    def log_ratio(self, state: State, x: Tensor, num_draws: int, noise: RowNoise) -> Tensor:
        """log p(x, z) - log q(z) (S, K, N) at fresh draws, with the path derivative: q's own parameters held fixed."""

    def fixed_log_ratios(self, state: State, x: Tensor, noise: RowNoise) -> Iterator[Tensor]:
        """log p(x, z) - log q(z) in blocks (S, K, N), at draws that are the same at every call."""


class NormalFamily(LocalFamily):
    """Normals: a state is the means (K, N, d) and the Cholesky factors (K, N, d, d).

    Offsets are in units of the factor.
    """

    def __init__(self, model: LatentModel, latent_dim: int, full: bool, like: Tensor) -> None:
        self.model, self.full = model, full
        self.even = even_draws(_DRAWS_OF_A_CHECK, latent_dim).to(like)

    def prepared(self, state: State, x: Tensor, noise: RowNoise) -> State:
        return state

    def zeros(self, state: State) -> list[Tensor]:
        loc, factor = state
        return [torch.zeros_like(loc), torch.zeros_like(loc), torch.zeros_like(factor)]

    def moved(self, state: State, offsets: list[Tensor]) -> State:
        (loc, factor), (offset, log_scale, dependence) = state, offsets
        change = torch.diag_embed(log_scale.exp())
        if self.full:
            change = change + dependence.tril(-1)
        return loc + _apply(factor, offset), factor @ change

    def log_ratio(self, state: State, x: Tensor, num_draws: int, noise: RowNoise) -> Tensor:
        return self.at_noise(state, x, noise.normal(state[0].detach().expand(num_draws, *state[0].shape)))

    def fixed_log_ratios(self, state: State, x: Tensor, noise: RowNoise) -> Iterator[Tensor]:
        for part in self.even.split(_draws_at_once(state, x)):
            yield self.at_noise(state, x, part[:, None, None].expand(-1, *state[0].shape))

    def at_noise(self, state: State, x: Tensor, noise: Tensor) -> Tensor:
        """log p(x, z) - log q(z) (S, K, N) at z = m + L ``noise`` (S, K, N, d), with the path derivative."""
        loc, factor = state
        z = loc + _apply(factor, noise)
        return self.model.log_joint(x, z) - MultivariateNormal(loc.detach(), scale_tril=factor.detach()).log_prob(z)


class MemberFamily(LocalFamily):
    r"""The family of any reparameterised :class:`LocalGuide`: a state is lambda (K, N, P) and its scale (K, N, P).

    The scale is the inverse square root of the Fisher information's diagonal,

    .. math:: F_p = E_{z \sim q} [(\partial_{\lambda_p} \log q(z; \lambda))^2]

    which is the standard deviation for a location and about one for a logarithm; it is at most one.
    """

    def __init__(self, model: LatentModel, guide: LocalGuide) -> None:
        self.model, self.guide = model, guide

    def prepared(self, state: State, x: Tensor, noise: RowNoise) -> State:
        parameters = state[0].detach()
        information = torch.zeros_like(parameters)
        draws = min(_DRAWS_OF_A_SCALE, _draws_at_once(state, x))
        with noise.starting_at(0, outer=len(parameters)):
            z = self.guide.member(parameters).sample(torch.Size((_DRAWS_OF_A_SCALE,)))
        for part in z.split(draws):
            # a copy for each draw: one pass then gives the gradient of each
            copies = parameters.expand(draws, *parameters.shape).clone().requires_grad_()
            with torch.enable_grad():
                (scores,) = torch.autograd.grad(self.guide.member(copies).log_prob(part).sum(), copies)
            information += scores.square().sum(0)
        scale = (information / _DRAWS_OF_A_SCALE).clamp(min=1.0).rsqrt()
        return parameters, scale

    def zeros(self, state: State) -> list[Tensor]:
        return [torch.zeros_like(state[0])]

    def moved(self, state: State, offsets: list[Tensor]) -> State:
        parameters, scale = state
        return parameters + scale * offsets[0], scale

    def log_ratio(self, state: State, x: Tensor, num_draws: int, noise: RowNoise) -> Tensor:
        with noise.starting_at(noise.first_draw, outer=len(state[0])):
            z = self.guide.member(state[0]).rsample(torch.Size((num_draws,)))
        return self.model.log_joint(x, z) - self.guide.member(state[0].detach()).log_prob(z)

    def fixed_log_ratios(self, state: State, x: Tensor, noise: RowNoise) -> Iterator[Tensor]:
        draws = _draws_at_once(state, x)
        for first in range(0, _DRAWS_OF_A_CHECK, draws):
            yield self.log_ratio(state, x, draws, noise.starting_at(first))


def as_normal(q: Distribution) -> tuple[Tensor, Tensor, bool] | None:
    """Mean (N, d), Cholesky factor (N, d, d), and True for a full covariance; None for a q that is not normal."""
    if isinstance(q, MultivariateNormal):
        return q.loc, q.scale_tril, True
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return q.base_dist.loc, torch.diag_embed(q.base_dist.scale), False
    return None


def even_draws(num: int, latent_dim: int) -> Tensor:
    """Standard normal draws (S, d) that fill the space evenly: a bound at them has little error of its own."""
    engine = torch.quasirandom.SobolEngine(latent_dim, scramble=True, seed=0)
    return torch.special.ndtri(engine.draw(num, dtype=torch.float64).clamp(1e-9, 1 - 1e-9))


def _draws_at_once(state: State, x: Tensor) -> int:
    """A power of two, so that all parts are of one size."""
    num_members = state[0].shape[:2].numel()
    most = _NUMBERS_AT_ONCE // (num_members * max(x.shape[1], _LEAST_WIDTH))
    return min(_DRAWS_OF_A_CHECK, max(_LEAST_DRAWS, 2 ** (max(most, 1).bit_length() - 1)))


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
