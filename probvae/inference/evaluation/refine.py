"""The best member of the guide's own family for each datum: the q_x that a perfect encoder would give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.optim.adam import adam

from probvae.errors import ArgumentError
from probvae.foundation.row_noise import RowNoise, row_keys
from probvae.foundation.seed import isolated_seed
from probvae.inference.guides import Guide, LocalGuide, PerDatumGuide
from probvae.inference.guides.families import LocalFamily, MemberFamily, NormalFamily, State, as_normal
from probvae.inference.pair import VAE, check_data, frozen
from probvae.models import LatentModel

_STEPS_IN_A_STAGE = 100
_MAX_STAGES = 12
_LEARNING_RATE = 0.05  # standard deviations of the start
_DRAWS_OF_A_STEP = 8
# A datum is done when a whole stage has raised its bound by less than this, in nats
_TOLERANCE = 2e-3
_PRIOR_DRAWS = 256
# A start inside one mode must be narrow, or it slides into covering all of them
_NARROW = 0.1
_SCREENING_DRAWS = 2
# How many other data's members are tried as a start for each datum
_NEIGHBOURS = 32
# Purposes of random numbers, beyond the numbers of stages and steps.
_STARTS, _SCALE, _CHECK = 10**6 + 1, 10**6 + 2, 10**6 + 3


@dataclass(frozen=True)
class Refinement:
    """The per-datum ``guide``, whether each datum's optimum was reached ``converged`` (N,), and ``start`` (N,).

    ``start`` is the number of the start that led to it: 0 the encoder's own q; for normals 1 the best of many prior
    draws and 2 the encoder's mean with the prior's scale; for other families 1 the best of what the encoder gives to
    other data.
    """

    guide: Guide
    converged: Tensor
    start: Tensor


def refine(vae: VAE, x: Tensor, *, seed: int = 0, full_covariance: bool = False) -> Refinement:
    r"""For each datum, the member of the guide's family with the largest ELBO.

    .. math:: q_n^* = \arg\max_{q \in Q} E_{z \sim q} [\log p(x_n, z) - \log q(z)]

    Q is the family of the guide: normals with a diagonal or a full covariance, or all q(z; lambda) of a
    :class:`~probvae.inference.LocalGuide` with reparameterised draws (for a flow: its network as it was trained, with
    any context). Adam follows the path-derivative gradient from several starts; the best goes on, in stages with a
    falling step, until a stage raises its bound, at draws that stay the same, by less than 0.002 nats. ``x`` is (N, D);
    the encoder and the model stay as they are. With ``full_covariance`` the family of a diagonal guide is widened to
    all normals.

    Raises :class:`~probvae.errors.ArgumentError` for a guide of another kind.
    Source: Cremer, Li and Duvenaud (2018), arXiv:1801.03558, section 3; Roeder et al. (2017) for the gradient.

    >>> import probvae
    >>> refine(probvae.VAE.example(), torch.zeros(5, 3)).guide.distribution(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    check_data(vae, x)
    if vae.groups(len(x)) is not None:
        raise ArgumentError(
            "vae: refine needs the same covariates for all data. Refine vae.given(y[n]) one y at a time."
        )
    with isolated_seed(seed, x.device), frozen(vae):
        with torch.no_grad():
            normal = as_normal(vae.guide.distribution(x))
        if normal is not None:
            loc, factor, full = normal
            return _refine_normal(vae.model, x, (loc, factor), full or full_covariance, seed)
        if full_covariance:
            raise ArgumentError("full_covariance: expected a normal guide, got another family. Leave it out.")
        return _refine_members(vae.model, _searchable(vae.guide, x), x, seed)


def _refine_normal(model: LatentModel, x: Tensor, normal: tuple[Tensor, Tensor], full: bool, seed: int) -> Refinement:
    loc, factor = normal
    family = NormalFamily(model, loc.shape[-1], full, like=loc)
    search = _Search(family, x, _normal_starts(model, x, loc, factor), seed)
    search.run()
    best_loc, best_factor = (part[0] for part in search.state)
    # a diagonal member stays diagonal, because refining it again, or taking its gap, needs the family
    member = _normal_of_factor if full else _diagonal_of_factor
    guide = PerDatumGuide(x, torch.cat([best_loc, best_factor.flatten(1)], dim=1), member)
    return Refinement(guide, search.converged, search.start)


def _refine_members(model: LatentModel, guide: LocalGuide, x: Tensor, seed: int) -> Refinement:
    family = MemberFamily(model, guide)
    search = _Search(family, x, _member_starts(family, x, seed), seed)
    search.run()
    return Refinement(PerDatumGuide(x, search.state[0][0], guide.member), search.converged, search.start)


def _normal_of_factor(parameters: Tensor) -> dist.TorchDistribution:
    """N(m, L L^T) from (m, L), (..., d + d^2)."""
    loc, factor = _loc_and_factor(parameters)
    return dist.MultivariateNormal(loc, scale_tril=factor.tril())


def _diagonal_of_factor(parameters: Tensor) -> dist.TorchDistribution:
    """N(m, diag(L)^2) from (m, L), (..., d + d^2)."""
    loc, factor = _loc_and_factor(parameters)
    return dist.Normal(loc, factor.diagonal(dim1=-2, dim2=-1)).to_event(1)


def _loc_and_factor(parameters: Tensor) -> tuple[Tensor, Tensor]:
    d = (math.isqrt(1 + 4 * parameters.shape[-1]) - 1) // 2
    loc, factor = parameters.split([d, d * d], dim=-1)
    return loc, factor.unflatten(-1, (d, d))


@torch.no_grad()
def not_refinable(vae: VAE, x: Tensor) -> str | None:
    """The reason why :func:`refine` cannot search the guide's family at ``x`` (N, D); None where it can."""
    vae, x = vae.at(slice(1)), x[:1]
    if as_normal(vae.guide.distribution(x)) is not None:
        return None
    try:
        _searchable(vae.guide, x)
    except ArgumentError as error:
        return str(error)
    return None


def _searchable(guide: Guide, x: Tensor) -> LocalGuide:
    # a subclass with a distribution of its own need not be the family that member() gives
    own = isinstance(guide, LocalGuide) and type(guide).distribution is LocalGuide.distribution
    if isinstance(guide, LocalGuide) and own and guide.distribution(x[:1]).has_rsample:
        return guide
    raise ArgumentError(
        "guide: refine knows normal guides, and every LocalGuide whose draws are reparameterised; "
        f"{type(guide).__name__} is neither. Use guide 'diagonal', 'full-covariance', 'low-rank', 'mixture' or 'flow'."
    )


@torch.no_grad()
def _normal_starts(model: LatentModel, x: Tensor, loc: Tensor, factor: Tensor) -> State:
    """Three starts for each datum: means (3, N, d) and factors (3, N, d, d)."""
    draws = model.prior().sample(torch.Size((_PRIOR_DRAWS,)))
    likelihood = model.likelihood(model.decode(draws).unsqueeze(1))
    rows = max(1, 2**24 // (_PRIOR_DRAWS * x.shape[1]))
    best = torch.cat([likelihood.log_prob(part).argmax(0) for part in x.split(rows)])
    wide = torch.diag_embed(draws.std(0).expand_as(loc))
    return torch.stack([loc, draws[best], loc]), torch.stack([factor, _NARROW * wide, wide])


@torch.no_grad()
def _member_starts(family: MemberFamily, x: Tensor, seed: int) -> State:
    """Two starts for each datum: its own parameters, and the best of those of data that the model makes.

    Other rows of ``x`` would do as well, but a datum's result would then depend on them.
    """
    own = family.guide.local_parameters(x)
    others = family.guide.local_parameters(_simulated(family.model, x))
    noise = RowNoise(row_keys(x), (seed, _STARTS), row_dim=2)
    bounds = torch.stack(
        [family.log_ratio((row.expand_as(own)[None],), x, _SCREENING_DRAWS, noise).mean(0)[0] for row in others]
    )
    parameters = torch.stack([own, others[bounds.argmax(0)]])
    return parameters, torch.ones_like(parameters)


def _simulated(model: LatentModel, x: Tensor) -> Tensor:
    """Data (M, D) that the model makes, with the dtype of ``x``."""
    z = model.prior().sample(torch.Size((_NEIGHBOURS,)))
    return model.likelihood(model.decode(z.reshape(-1, z.shape[-1]))).sample().to(x)


class _Search:
    """Members of a family for K starts of N data, climbing their bounds."""

    def __init__(self, family: LocalFamily, x: Tensor, state: State, seed: int) -> None:
        self.family, self.x, self.keys, self.seed = family, x, row_keys(x), seed
        self.everything = torch.arange(len(x), device=x.device)
        self.state: State = tuple(part.detach() for part in state)
        self.converged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.start = torch.zeros(len(x), dtype=torch.long, device=x.device)

    def run(self) -> None:
        """The best member for each datum."""
        self._screen()
        self._climb()

    def _screen(self) -> None:
        """One short stage from every start; each datum goes on with its best, and never below its first."""
        first = tuple(part[:1] for part in self.state)
        moved = self._stage(self.state, self.everything, 0, _LEARNING_RATE)
        # the encoder's own q is a candidate as it is: a stage may leave a datum worse than it found it
        candidates = tuple(torch.cat(parts) for parts in zip(first, moved, strict=True))
        bounds = torch.cat([self._bound(part, self.everything) for part in (first, moved)])
        best = bounds.argmax(0)
        rows = torch.arange(len(self.x), device=self.x.device)
        self.start = (best - 1).clamp(min=0)
        self.state, self.bound = tuple(part[best, rows][None] for part in candidates), bounds[best, rows]

    def _climb(self) -> None:
        """Stages on the data that still rise."""
        rate = _LEARNING_RATE
        for number in range(1, _MAX_STAGES + 1):
            rows = (~self.converged).nonzero()[:, 0]
            if len(rows) == 0:
                return
            state = self._stage(tuple(part[:, rows] for part in self.state), rows, number, rate)
            bound = self._bound(state, rows)[0]
            better = bound > self.bound[rows]
            self.converged[rows] = bound - self.bound[rows] < _TOLERANCE
            kept = rows[better]
            for old, new in zip(self.state, state, strict=True):
                old[:, kept] = new[:, better]
            self.bound[kept] = bound[better]
            rate *= 0.7

    def _stage(self, state: State, rows: Tensor, number: int, rate: float) -> State:
        """Adam on offsets in the state's own scale, for the data ``rows``; the draws belong to each datum."""
        x, keys, draws = self.x[rows], self.keys[rows], _DRAWS_OF_A_STEP if number else _SCREENING_DRAWS
        state = self.family.prepared(state, x, RowNoise(keys, (self.seed, number, _SCALE), row_dim=2))
        offsets = [offset.requires_grad_() for offset in self.family.zeros(state)]
        adam = _Adam(offsets)
        for step in range(_STEPS_IN_A_STAGE):
            with torch.enable_grad():
                noise = RowNoise(keys, (self.seed, number, step), row_dim=2)
                ratio = self.family.log_ratio(self.family.moved(state, offsets), x, draws, noise)
                gradients = torch.autograd.grad(-ratio.sum() / draws, offsets, materialize_grads=True)
            adam.step(gradients, rate * 0.5 * (1 + math.cos(math.pi * step / _STEPS_IN_A_STAGE)))
        with torch.no_grad():
            return self.family.moved(state, offsets)

    @torch.no_grad()
    def _bound(self, state: State, rows: Tensor) -> Tensor:
        """The ELBO (K, N) of the data ``rows`` at draws that are the same at every call."""
        noise = RowNoise(self.keys[rows], (self.seed, _CHECK), row_dim=2)
        ratios = [ratio.mean(0) for ratio in self.family.fixed_log_ratios(state, self.x[rows], noise)]
        return torch.stack(ratios).mean(0)


class _Adam:
    """torch's Adam by its function: the class imports torch's compiler, which takes longer than many a search."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = [parameter.detach() for parameter in parameters]
        self.first, self.second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        self.steps = [torch.zeros(()) for _ in parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        adam(
            self.parameters,
            list(gradients),
            self.first,
            self.second,
            [],
            self.steps,
            foreach=False,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
