"""Evidence and posterior by numerical integration over z, for d <= 2."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.errors import ArgumentError, ProbvaeError
from probvae.foundation.checks import check_count, check_matrix, check_positive
from probvae.foundation.operators import numbers_made
from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.moments import mean_and_variance
from probvae.inference.evidence.cubature import Box, Leaves, integrate, log_sum, nodes_of_a_cell, total_error
from probvae.inference.evidence.log_joint import LogJoint, double_copy
from probvae.inference.evidence.prior_support import repeats, support_of
from probvae.inference.guides import Guide
from probvae.models import LatentModel

_BLOCK = 1024  # data at a time; a block shares the decoder's values
_NUM_PRIOR_DRAWS = 4096
_MARGIN = 2.5  # the first box, in multiples of the range of the prior's draws
_WIDENING = 3.0
_MAX_WIDENINGS = 10
_SHELL = 0.75  # past this share of the box's half width begins its outer shell
# Beyond a box of half width R, a density that falls like 1/z^2 has three times the mass of the shell from 0.75 R to R.
_BEYOND_SHELL = 3.0
_MAX_CELLS = 20_000
# The most numbers that log p(z) may compute in one box, some three minutes. A flow computes ten thousand for one z.
_MAX_NUMBERS = 2**37
_COUNTED_DRAWS = 64
_ROUNDING = 8 * torch.finfo(torch.float64).eps


class QuadratureError(ProbvaeError, ArithmeticError):
    """The integral has no finite value, or the grid could not be made to cover the posterior."""


class QuadratureResult(NamedTuple):
    """The integrals over z, in float64.

    ``log_evidence`` (N,) is log p(x) and ``error`` (N,) an estimate of its absolute error, both in nats;
    ``mean`` (N, d) and ``covariance`` (N, d, d) are those of p(z|x), in the units of z. ``converged`` (N,) says where
    the error is within the tolerance.
    """

    log_evidence: Tensor
    error: Tensor
    mean: Tensor
    covariance: Tensor
    converged: Tensor


class PosteriorGrid(NamedTuple):
    """``axes``: d tensors (n,), the coordinates; ``log_density`` (N, n) or (N, n, n): log p(z|x), first axis first."""

    axes: tuple[Tensor, ...]
    log_density: Tensor


@torch.no_grad()
def quadrature(
    model: LatentModel, x: Tensor, *, tolerance: float = 1e-6, guide: Guide | None = None, max_cells: int | None = None
) -> QuadratureResult:
    r"""log p(x) and the moments of p(z|x) by adaptive integration over z, for d <= 2 and any model.

    .. math:: p(x) = \int p(z) \, p(x|z) \, dz

    Cells with a Gauss-Lobatto rule are split where halving them changes the integral of a datum, and the box
    around them is widened until its outer shell has no mass that matters. Densities with kinks, several modes, heavy
    tails or a bounded support are covered. The error estimate adds up how much the last halving of each cell
    changed the integral, what may hide between nodes, the mass beyond the box, and rounding. It is an estimate, not a
    proof: a peak far narrower than all variation that the nodes see can be missed, and in the plane a kink that runs
    along an axis makes equal errors in many cells, for which the estimate is too small in a few per cent of the data.

    Parameters
    ----------
    model
        Used as a copy in float64 and in evaluation mode; the caller's is left as it is.
    x
        (N, D).
    tolerance
        The largest error of log p(x), in nats. The moments are not controlled by themselves.
    guide
        Widens the first box to the guide's means and ten of its standard deviations; needed only for a posterior
        of which the prior's region shows no sign.
    max_cells
        A datum with so many cells is not refined any more; its error is then above the tolerance, and
        ``converged`` says so. The default is 20,000, or fewer where log p(z) is so costly (a VampPrior of many flows
        is) that all data together would take more than minutes a box.

    Raises :class:`~probvae.errors.ArgumentError` for d > 2, and :class:`QuadratureError` where the density is NaN or
    infinite, or the last box still does not cover the posterior.
    Source: Genz and Malik (1980), "An adaptive algorithm for numerical integration", for the scheme.

    >>> import probvae
    >>> result = quadrature(probvae.VAE.example().model, torch.zeros(5, 3))
    >>> result.log_evidence.shape, result.covariance.shape, bool(result.converged.all())
    (torch.Size([5]), torch.Size([5, 2, 2]), True)
    """
    check_positive(tolerance, "tolerance")
    if max_cells is not None:
        check_count(max_cells, "max_cells")
    _check_model(model, x)
    # read in float64 from here on: the ends of a prior's support too would otherwise be off by their rounding
    model = double_copy(model, x.device)
    with dist.validation_enabled(False):  # outside the prior's support the density is 0, not an error
        max_cells = max_cells or _affordable_cells(model, x)
        boxes = [_first_box(model, rows, guide) for rows in x.split(_BLOCK)]
        blocks = zip(x.split(_BLOCK), boxes, strict=True)
        parts = [_block(model, rows, box, tolerance, max_cells) for rows, box in blocks]
    joined = QuadratureResult(*(torch.cat(part) for part in zip(*parts, strict=True)))
    return joined._replace(converged=joined.error <= tolerance)


@torch.no_grad()
def posterior_grid(
    model: LatentModel,
    x: Tensor,
    num_points: int = 101,
    extent: Sequence[tuple[float, float]] | None = None,
    tolerance: float = 1e-6,
    truth: QuadratureResult | None = None,
) -> PosteriorGrid:
    r"""log p(z|x) on a regular grid, for plots; it is normalised by :func:`quadrature`, not by the grid.

    .. math:: \log p(z|x) = \log p(z) + \log p(x|z) - \log p(x)

    ``extent`` has one (lowest, highest) for each z_j, in the units of z; by default it reaches four standard deviations
    beyond the posterior mean of every datum. Densities in nats, to ``tolerance``; errors as in :func:`quadrature`. Its
    result for ``x`` is ``truth``, where it is known already.

    >>> import probvae
    >>> axes, log_density = posterior_grid(probvae.VAE.example().model, torch.zeros(5, 3), num_points=21)
    >>> len(axes), log_density.shape
    (2, torch.Size([5, 21, 21]))
    """
    check_count(num_points, "num_points", least=2)
    truth = truth or quadrature(model, x, tolerance=tolerance)
    box = _extent_of(truth) if extent is None else _check_extent(extent, model.latent_dim, truth.mean)
    limits = zip(box.lower.tolist(), box.upper.tolist(), strict=True)
    axes = tuple(torch.linspace(*pair, num_points, dtype=torch.float64, device=x.device) for pair in limits)
    with dist.validation_enabled(False):
        log_joint = _on_grid(double_copy(model, x.device), x, axes)
    log_density = log_joint - truth.log_evidence.unsqueeze(1)
    return PosteriorGrid(axes, log_density.reshape(len(x), *[num_points] * len(axes)))


def _check_model(model: LatentModel, x: Tensor) -> None:
    if model.latent_dim > 2:
        raise ArgumentError(
            f"model: quadrature needs latent_dim <= 2, got {model.latent_dim}. Use annealed importance sampling, or "
            "the closed form where the decoder is linear and the noise Gaussian."
        )
    check_matrix(x, model.data_dim)
    model.check_conditioned()
    model.likelihood.check_data(x)


def _affordable_cells(model: LatentModel, x: Tensor) -> int:
    """For each datum, by the numbers that log p(z) makes on its way: data share few of their cells."""
    with isolated_seed(0, x.device):
        prior = model.prior()
        z = prior.sample(torch.Size((_COUNTED_DRAWS,)))
    numbers_of_a_cell = numbers_made(lambda: prior.log_prob(z)) * nodes_of_a_cell(model.latent_dim) / _COUNTED_DRAWS
    return max(1, min(_MAX_CELLS, int(_MAX_NUMBERS / (numbers_of_a_cell * max(1, len(x))))))


def _block(model: LatentModel, x: Tensor, box: Box, tolerance: float, max_cells: int) -> QuadratureResult:
    """The result for a few data: in the first box, then the data that it does not cover in a wider one."""
    prior = model.prior()
    support = support_of(prior, like=box.lower)
    box = _clipped(box, support)
    if torch.isinf(support.lower).any() and repeats(prior):
        raise QuadratureError(
            f"model: expected a prior whose density vanishes beyond its draws, which lie in {_describe(box)}; that of "
            f"{type(prior).__name__} (support {prior.support}) goes on there, as that of an angle does. Give it a "
            "support with ends, as in constraints.interval(-pi, pi), or take truth='importance'."
        )
    result, covered = _in_box(model, x, box, support, tolerance, max_cells)
    for _ in range(_MAX_WIDENINGS):
        if covered.all():
            return result
        box, rest = _clipped(_stretched(box, _WIDENING), support), (~covered).nonzero()[:, 0]
        wider, now = _in_box(model, x[rest], box, support, tolerance, max_cells)
        for old, new in zip(result, wider, strict=True):
            old[rest] = new
        covered[rest] = now
    if covered.all():
        return result
    raise QuadratureError(
        f"x: for {int((~covered).sum())} of {len(x)} rows (first in its block: row {int((~covered).nonzero()[0])}) the "
        f"grid does not cover the posterior, after {_MAX_WIDENINGS} widenings to z in {_describe(box)}. Give a guide "
        "to look around, a larger tolerance, or check that the row has a density above zero."
    )


def _in_box(
    model: LatentModel, x: Tensor, box: Box, support: Box, tolerance: float, max_cells: int
) -> tuple[QuadratureResult, Tensor]:
    """The result over the box, and for each datum whether the box covers its posterior."""
    density = _Finite(LogJoint(model, x, rounding=tolerance / 1000))
    leaves = integrate(density, len(x), box, tolerance / 2, max_cells)
    log_evidence = log_sum(leaves.log_mass, leaves.datum, len(x))
    beyond = _BEYOND_SHELL * _relative(
        leaves.log_mass.where(_outer(leaves, box, support), -math.inf), leaves, log_evidence
    )
    error = total_error(leaves, log_evidence)[0] + beyond + _ROUNDING * (1 + log_evidence.abs())
    mean, covariance = _moments(leaves, log_evidence)
    covered = log_evidence.isfinite() & (beyond <= max(tolerance / 2, _ROUNDING))
    return QuadratureResult(log_evidence, error, mean, covariance, covered), covered


def _relative(log_values: Tensor, leaves: Leaves, log_evidence: Tensor) -> Tensor:
    """The sum of the values of each datum's cells, as a share of its evidence."""
    return (log_sum(log_values, leaves.datum, len(log_evidence)) - log_evidence).exp()


def _moments(leaves: Leaves, log_evidence: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the mixture of the cells: the law of total covariance."""
    weight = (leaves.log_mass - log_evidence[leaves.datum]).exp().unsqueeze(1)
    n, d = len(log_evidence), leaves.mean.shape[1]
    mean = weight.new_zeros(n, d).index_add(0, leaves.datum, weight * leaves.mean)
    offset = leaves.mean - mean[leaves.datum]
    squares = leaves.covariance + offset.unsqueeze(1) * offset.unsqueeze(2)
    return mean, weight.new_zeros(n, d, d).index_add(0, leaves.datum, weight.unsqueeze(2) * squares)


class _Finite:
    """A log density that must not be NaN or plus infinity."""

    def __init__(self, log_joint: LogJoint) -> None:
        self.log_joint = log_joint

    def __call__(self, z: Tensor, datum: Tensor, cell: Tensor) -> Tensor:
        values = self.log_joint(z, datum, cell)
        if (values < math.inf).all():  # NaN compares false
            return values
        pair, node = (~(values < math.inf)).nonzero()[0].tolist()
        where = [round(number, 4) for number in z[cell[pair], node].tolist()]
        raise QuadratureError(
            f"model: log p(x, z) is {values[pair, node].item():g} at z = {where}, where a number was expected. "
            "Check the decoder's weights and the likelihood's variance."
        )


def _first_box(model: LatentModel, x: Tensor, guide: Guide | None) -> Box:
    with isolated_seed(0, x.device):
        draws = model.prior().sample((_NUM_PRIOR_DRAWS,))
    box = _stretched(Box(*torch.aminmax(draws, dim=0)), _MARGIN)
    if guide is not None:
        weights = next(guide.parameters(), x)
        q = guide.distribution(x.to(weights.dtype))
        mean, variance = (moment.double() for moment in mean_and_variance(q))
        reach = 10 * variance.sqrt()
        known = (mean.abs() + reach).isfinite().all(1)  # a guide that overflows says nothing
        lower, upper = (mean - reach)[known], (mean + reach)[known]
        box = Box(torch.cat([box.lower[None], lower]).amin(0), torch.cat([box.upper[None], upper]).amax(0))
    return box


def _stretched(box: Box, factor: float) -> Box:
    centre, half = (box.lower + box.upper) / 2, factor * (box.upper - box.lower) / 2
    return Box(centre - half, centre + half)


def _outer(leaves: Leaves, box: Box, support: Box) -> Tensor:
    """Which cells lie in the outer shell of the box, where the prior goes on beyond it."""
    hair = 1e-9 * (box.upper - box.lower)
    low = (leaves.centre < -_SHELL) & (box.lower > support.lower + hair)
    high = (leaves.centre > _SHELL) & (box.upper < support.upper - hair)
    return (low | high).any(1)


def _clipped(box: Box, support: Box) -> Box:
    """The box within the support, less a hair: an interval's end may belong to it or not."""
    hair = 1e-14 * (box.upper - box.lower)
    return Box(torch.maximum(box.lower, support.lower + hair), torch.minimum(box.upper, support.upper - hair))


def _describe(box: Box) -> str:
    limits = zip(box.lower.tolist(), box.upper.tolist(), strict=True)
    return " x ".join(f"[{lower:.3g}, {upper:.3g}]" for lower, upper in limits)


def _on_grid(model: LatentModel, x: Tensor, axes: tuple[Tensor, ...]) -> Tensor:
    """log p(x, z) (N, number of nodes) on the product of the axes."""
    nodes = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    columns = []
    log_joint = _Finite(LogJoint(model, x, rounding=1e-9))
    datum = torch.arange(len(x), device=x.device)
    for z in nodes.split(max(1, 2**20 // len(x))):
        columns.append(log_joint(z.unsqueeze(0), datum, torch.zeros_like(datum)))
    return torch.cat(columns, dim=1)


def _extent_of(truth: QuadratureResult) -> Box:
    reach = 4 * truth.covariance.diagonal(dim1=1, dim2=2).sqrt()
    return Box((truth.mean - reach).min(0).values, (truth.mean + reach).max(0).values)


def _check_extent(extent: Sequence[tuple[float, float]], latent_dim: int, like: Tensor) -> Box:
    limits = like.new_tensor(extent)
    if limits.shape != (latent_dim, 2) or not (limits[:, 0] < limits[:, 1]).all():
        raise ArgumentError(
            f"extent: expected {latent_dim} pairs (lowest, highest), got {extent!r}. For example: "
            f"{[(-3.0, 3.0)] * latent_dim}."
        )
    return Box(limits[:, 0], limits[:, 1])
