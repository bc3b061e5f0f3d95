"""log p(x, z) in float64 for many data and many z at once, on a copy of the model."""

import math
from copy import deepcopy
from typing import NamedTuple

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from probvae.models import LatentModel
from probvae.models.likelihoods.base import ObservedEntries
from probvae.models.likelihoods.categorical_likelihood import Codes
from probvae.models.likelihoods.poisson_likelihood import LogPoisson

# Elements of one pass over (pairs, nodes, D): 8 MiB, so that the handful of temporaries stays in the cache
_ELEMENTS = 2**20
_EPS = torch.finfo(torch.float64).eps


def double_copy(model: LatentModel, device: torch.device) -> LatentModel:
    """The model in float64 and evaluation mode, without gradients, on the device; the caller's is left as it is."""
    return deepcopy(model).to(device=device, dtype=torch.float64).eval().requires_grad_(False)


class LogJoint:
    r"""log p(x_n, z) = log p(z) + log p(x_n|z), with z at the nodes of cells.

    Normal, Bernoulli, Poisson and categorical likelihoods are affine in statistics of x,

    .. math:: \log p(x|z) = T(x) \cdot \eta(z) - A(z)

    so one matrix product serves all pairs of a datum and a node. Where that product would lose more than
    ``rounding`` nats to cancellation, and for every other likelihood, the pairs are evaluated one by one.
    ``model`` is what :func:`double_copy` gives.
    """

    def __init__(self, model: LatentModel, x: Tensor, rounding: float) -> None:
        self.model, self.prior = model, model.prior()
        self.x, self.rounding = x.double(), rounding
        self.origin = self.x.mean(0)

    def __call__(self, z: Tensor, datum: Tensor, cell: Tensor) -> Tensor:
        """log p(x[datum], z[cell]) (P, M) for ``z`` (C, M, d), and the pairs ``datum`` (P,), ``cell`` (P,)."""
        nodes = z.flatten(0, 1)
        log_prior = self.prior.log_prob(nodes).reshape(z.shape[:2])
        parameters = self.model.decode(nodes)
        log_likelihood = self._by_product(parameters, z.shape[1], datum, cell)
        if log_likelihood is None:
            log_likelihood = self._one_by_one(parameters.reshape(*z.shape[:2], -1), datum, cell)
        return log_likelihood.add_(log_prior[cell])

    def _by_product(self, parameters: Tensor, num_nodes: int, datum: Tensor, cell: Tensor) -> Tensor | None:
        rows, row = datum.unique(return_inverse=True)
        affine = affine_form(self.model.likelihood(parameters), self.x[rows], self.origin)
        if affine is None or 4 * _EPS * affine.magnitude > self.rounding:
            return None
        table = torch.addmm(affine.offset, affine.statistics, affine.natural.T)
        return table.reshape(len(rows), -1, num_nodes)[row, cell]

    def _one_by_one(self, parameters: Tensor, datum: Tensor, cell: Tensor) -> Tensor:
        pairs = max(1, _ELEMENTS // (parameters.shape[1] * self.x.shape[1]))
        chunks = zip(datum.split(pairs), cell.split(pairs), strict=True)
        likelihood = self.model.likelihood
        return torch.cat([likelihood(parameters[c]).log_prob(self.x[n].unsqueeze(1)) for n, c in chunks])


class AffineForm(NamedTuple):
    """log p(x|z) = statistics . natural + offset: (N, S), (G, S), (G,); ``magnitude`` bounds what cancels in it."""

    statistics: Tensor
    natural: Tensor
    offset: Tensor
    magnitude: float


def affine_form(p: dist.TorchDistribution, x: Tensor, origin: Tensor) -> AffineForm | None:
    """The affine form of p(x|z) (batch G) for data ``x`` (N, D) measured from ``origin`` (D,), or None."""
    if isinstance(p, ObservedEntries):
        return None  # the missing entries differ from datum to datum
    if not isinstance(p, torch.distributions.Independent) or p.reinterpreted_batch_ndims != 1:
        return None
    base = p.base_dist
    if type(base) is dist.Normal:
        return _normal_form(base.loc - origin, base.scale, x - origin)
    if isinstance(base, dist.Bernoulli):
        offset = -nn.functional.softplus(base.logits).sum(-1)
        return AffineForm(x, base.logits, offset, float(offset.abs().max()))
    if type(base) is LogPoisson:
        return _poisson_form(base.log_rate, x)
    if type(base) is Codes:
        return _categorical_form(base.logits, x)
    return None


def _poisson_form(log_rate: Tensor, x: Tensor) -> AffineForm:
    offset = -log_rate.exp().sum(-1)
    log_factorials = (x + 1).lgamma().sum(-1, keepdim=True)
    natural = torch.cat([log_rate, -torch.ones_like(log_rate[:, :1])], dim=1)
    magnitude = float(offset.abs().max() + log_factorials.max())
    return AffineForm(torch.cat([x, log_factorials], dim=1), natural, offset, magnitude)


def _categorical_form(log_p: Tensor, x: Tensor) -> AffineForm:
    codes = nn.functional.one_hot(x.long(), log_p.shape[-1]).to(log_p)
    # all terms have one sign: nothing cancels
    return AffineForm(codes.flatten(1), log_p.flatten(1), log_p.new_zeros(len(log_p)), 0.0)


def _normal_form(loc: Tensor, scale: Tensor, x: Tensor) -> AffineForm:
    shared = scale.stride(0) == 0  # one c, or one for each dimension: the same for all z
    scale = scale[:1] if shared else scale
    precision = scale.square().reciprocal()
    normaliser = (scale.log() + 0.5 * math.log(2 * math.pi)).sum(-1)
    natural = loc * precision
    offset = -0.5 * torch.linalg.vecdot(loc, natural) - normaliser
    squares = x.square()
    magnitude = float((squares.max(0).values * precision).sum(-1).max())
    if shared:
        constant = -0.5 * (squares @ precision.T)
        statistics, natural = torch.cat([x, constant], dim=1), nn.functional.pad(natural, (0, 1), value=1.0)
    else:
        statistics, natural = torch.cat([x, squares], dim=1), torch.cat([natural, -0.5 * precision], dim=1)
    return AffineForm(statistics, natural, offset, magnitude)
