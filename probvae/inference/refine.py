"""The best member of the guide's own family for each datum: what the encoder should have given."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from probvae._seed import isolated_seed
from probvae.errors import ArgumentError
from probvae.inference.annealing import log_joint
from probvae.inference.evaluation import ModelAndGuide, check_data, frozen
from probvae.inference.guides import Guide
from probvae.inference.guides.free import FreeGuide
from probvae.models import LatentModel

_STEPS_IN_A_STAGE = 100
_MAX_STAGES = 12
_LEARNING_RATE = 0.05  # in standard deviations of the start
_DRAWS_OF_A_STEP = 8
_DRAWS_OF_A_CHECK = 256
# A datum is done when a whole stage has raised its bound by less than this, in nats
_TOLERANCE = 2e-3
_PRIOR_DRAWS = 256
# A start inside one mode must be narrow, or it slides into covering all of them
_NARROW = 0.1
_SCREENING_DRAWS = 2


@dataclass(frozen=True)
class Refinement:
    """The per-datum ``guide``, whether each datum's optimum was reached ``converged`` (N,), and ``start`` (N,).

    ``start`` is the number of the start that led to it: 0 the encoder's own q, 1 the best of many prior draws,
    2 the encoder's mean with the prior's scale.
    """

    guide: Guide
    converged: Tensor
    start: Tensor


def refine(vae: ModelAndGuide, x: Tensor, *, seed: int = 0) -> Refinement:
    r"""For each datum, the member of the guide's family with the largest ELBO.

    .. math:: q_n^* = \arg\max_{q \in Q} E_{z \sim q} [\log p(x_n, z) - \log q(z)]

    Q is the family of the guide: normals with a diagonal or a full covariance. Adam follows the path-derivative
    gradient from three starts; the best goes on, in stages with a falling step, until a stage raises its bound, at
    draws that stay the same, by less than 0.002 nats. ``x`` is (N, D); the encoder and the model stay as they are.

    Raises :class:`~probvae.errors.ArgumentError` for a guide of another family.
    Source: Cremer, Li and Duvenaud (2018), arXiv:1801.03558, section 3; Roeder et al. (2017) for the gradient.

    >>> import probvae
    >>> refine(probvae.VAE.example(), torch.zeros(5, 3)).guide.distribution(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    check_data(vae, x)
    with isolated_seed(seed, x.device), frozen(vae):
        loc, factor, full = _family(vae.guide.distribution(x))
        search = _Search(vae.model, x, *_starts(vae.model, x, loc, factor), full)
        search.screen()
        search.climb()
    return Refinement(FreeGuide(x, search.loc[0], search.factor[0]), search.converged, search.start)


def _family(q: Distribution) -> tuple[Tensor, Tensor, bool]:
    """Mean (N, d), Cholesky factor (N, d, d), and whether the covariance is full."""
    if isinstance(q, MultivariateNormal):
        return q.loc, q.scale_tril, True
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return q.base_dist.loc, torch.diag_embed(q.base_dist.scale), False
    raise ArgumentError(
        f"guide: refine knows normal guides with a diagonal or full covariance, got {type(q).__name__}. "
        "Use guide 'diagonal' or 'full-covariance'."
    )


@torch.no_grad()
def _starts(model: LatentModel, x: Tensor, loc: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Three starts for each datum: means (3, N, d) and factors (3, N, d, d)."""
    draws = model.prior().sample(torch.Size((_PRIOR_DRAWS,)))
    likelihood = model.likelihood(model.decoder(draws).unsqueeze(1))
    rows = max(1, 2**24 // (_PRIOR_DRAWS * x.shape[1]))
    best = torch.cat([likelihood.log_prob(part).argmax(0) for part in x.split(rows)])
    wide = torch.diag_embed(draws.std(0).expand_as(loc))
    return torch.stack([loc, draws[best], loc]), torch.stack([factor, _NARROW * wide, wide])


class _Search:
    """Normals m + L eps for K starts of N data, climbing their bounds."""

    def __init__(self, model: LatentModel, x: Tensor, loc: Tensor, factor: Tensor, full: bool) -> None:
        self.model, self.x, self.loc, self.factor, self.full = model, x, loc.detach(), factor.detach(), full
        self.converged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.start = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.noise = _even_draws(_DRAWS_OF_A_CHECK, loc)

    def screen(self) -> None:
        """One short stage from every start; each datum goes on with its best, and never below its first."""
        first = self._bound(self.loc[:1], self.factor[:1], slice(None))
        loc, factor = self._stage(self.loc, self.factor, self.x, _LEARNING_RATE, _SCREENING_DRAWS)
        # the encoder's own q is a candidate as it is: a stage may leave a datum worse than it found it
        loc, factor = torch.cat([self.loc[:1], loc]), torch.cat([self.factor[:1], factor])
        bounds = torch.cat([first, self._bound(loc[1:], factor[1:], slice(None))])
        best = bounds.argmax(0)
        rows = torch.arange(len(self.x), device=self.x.device)
        self.start = (best - 1).clamp(min=0)
        self.loc, self.factor, self.bound = loc[best, rows][None], factor[best, rows][None], bounds[best, rows]

    def climb(self) -> None:
        """Stages on the data that still rise."""
        rate = _LEARNING_RATE
        for _ in range(_MAX_STAGES):
            rows = (~self.converged).nonzero()[:, 0]
            if len(rows) == 0:
                return
            loc, factor = self._stage(self.loc[:, rows], self.factor[:, rows], self.x[rows], rate, _DRAWS_OF_A_STEP)
            bound = self._bound(loc, factor, rows)[0]
            better = bound > self.bound[rows]
            self.converged[rows] = bound - self.bound[rows] < _TOLERANCE
            kept = rows[better]
            self.loc[:, kept], self.factor[:, kept], self.bound[kept] = loc[:, better], factor[:, better], bound[better]
            rate *= 0.7

    def _stage(self, loc: Tensor, factor: Tensor, x: Tensor, rate: float, draws: int) -> tuple[Tensor, Tensor]:
        """Adam on the offset of the mean and on the factor, both measured in the start's own factor."""
        offset = torch.zeros_like(loc).requires_grad_()
        log_scale = torch.zeros_like(loc).requires_grad_()
        dependence = torch.zeros_like(factor).requires_grad_()
        optimizer = torch.optim.Adam([offset, log_scale, dependence], lr=rate)
        with torch.enable_grad():
            for step in range(_STEPS_IN_A_STAGE):
                optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / _STEPS_IN_A_STAGE))
                moved, changed = self._moved(loc, factor, offset, log_scale, dependence)
                noise = torch.randn(draws, *moved.shape, dtype=x.dtype, device=x.device)
                optimizer.zero_grad()
                (-self._value(moved, changed, noise, x, path=True).sum() / draws).backward()
                optimizer.step()
        with torch.no_grad():
            return self._moved(loc, factor, offset, log_scale, dependence)

    def _moved(
        self, loc: Tensor, factor: Tensor, offset: Tensor, log_scale: Tensor, dependence: Tensor
    ) -> tuple[Tensor, Tensor]:
        change = torch.diag_embed(log_scale.exp())
        if self.full:
            change = change + dependence.tril(-1)
        return loc + (factor @ offset.unsqueeze(-1)).squeeze(-1), factor @ change

    def _value(self, loc: Tensor, factor: Tensor, noise: Tensor, x: Tensor, path: bool) -> Tensor:
        """log p(x, z) - log q(z) at z = m + L eps; with ``path``, q's own parameters are held fixed."""
        z = loc + (factor @ noise.unsqueeze(-1)).squeeze(-1)
        q = MultivariateNormal(*((loc.detach(), None, None, factor.detach()) if path else (loc, None, None, factor)))
        return log_joint(self.model, x, z) - q.log_prob(z)

    @torch.no_grad()
    def _bound(self, loc: Tensor, factor: Tensor, rows: Tensor | slice) -> Tensor:
        """The ELBO (K, N) at draws that are the same at every call."""
        x = self.x[rows]
        total = torch.zeros(loc.shape[:2], dtype=x.dtype, device=x.device)
        for part in self.noise.split(16):
            noise = part[:, None, None].expand(-1, *loc.shape)
            total += self._value(loc, factor, noise, x, path=False).sum(0)
        return total / len(self.noise)


def _even_draws(num: int, like: Tensor) -> Tensor:
    """Standard normal draws (num, d) that fill the space evenly: a bound at them has little error of its own."""
    engine = torch.quasirandom.SobolEngine(like.shape[-1], scramble=True, seed=0)
    uniform = engine.draw(num, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    return torch.special.ndtri(uniform).to(like)
