"""Adaptive integration over boxes of R^1 and R^2, for many densities at once that share their cells.

A cell is a dyadic part of the box. It is split for those data only whose integral needs it, and what depends on the
cell alone (the decoder) is computed once for all of these.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

LogDensity = Callable[[Tensor, Tensor, Tensor], Tensor]  # z (C, M, d), datum (P,), cell (P,) -> (P, M)

_NUM_NODES = {1: 10, 2: 6}  # a dimension; Gauss and Legendre's rule, exact to degree 19 and 11
_FIRST_LEVEL = {1: 5, 2: 3}  # the first grid has 2^level cells a dimension
_LAST_LEVEL = {1: 58, 2: 28}  # what the 63 bits of a cell's code can tell apart
# Of a quadratic, the nodes' range (nats) times 0.065 bounds how far its top rises above the highest node.
_HIDDEN_SHARE = 0.25
# A cell whose nodes differ by more nats than this may hide a peak between them; it is split, whatever it sums to.
_RESOLVED_RANGE = 20.0
# Past this share of the box's half width begins its outer shell, whose mass says whether the box was wide enough
_SHELL = 0.75
_CHUNK_NODES = 4096
_CHUNK_PAIRS = 8192
_NOISE = 8 * torch.finfo(torch.float64).eps


class Box(NamedTuple):
    """The points between ``lower`` (d,) and ``upper`` (d,)."""

    lower: Tensor
    upper: Tensor


@dataclass
class Leaves:
    """P pairs of a datum and a cell; for each datum its cells tile the box.

    ``code`` names the cell; ``centre`` is in units of the box, [-1, 1]^d; ``log_mass`` is the log of the integral
    over the cell, ``log_error`` the log of the bound of its error; ``mean`` and ``covariance`` are those of z in it.
    """

    datum: Tensor
    code: Tensor
    level: Tensor
    centre: Tensor
    outer: Tensor
    log_mass: Tensor
    log_error: Tensor
    mean: Tensor
    covariance: Tensor

    def __getitem__(self, index: Tensor) -> Self:
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))

    def joined(self, other: Self) -> Self:
        """These and the others."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return type(self)(*(torch.cat(pair) for pair in pairs))


class _Cells(NamedTuple):
    """What is known of a pair before it is evaluated."""

    datum: Tensor
    code: Tensor
    level: Tensor
    centre: Tensor

    def split(self) -> "_Cells":
        """The 2^d children of each, in a row."""
        corners = _corners(self.centre)
        num, d = corners.shape
        width = 0.5 ** (self.level + 1.0)
        centre = self.centre.unsqueeze(1) + corners * width[:, None, None]
        code = self.code.unsqueeze(1) * num + torch.arange(num, device=self.code.device)
        return _Cells(
            self.datum.repeat_interleave(num),
            code.flatten(),
            (self.level + 1).repeat_interleave(num),
            centre.reshape(-1, d),
        )


def integrate(log_density: LogDensity, num_data: int, box: Box, tolerance: float, max_cells: int) -> Leaves:
    r"""The integrals of ``num_data`` densities over the box, as cells that add up to them.

    Each datum's cells are split, those with the largest error first, until their errors sum to less than
    ``tolerance`` times the integral, or there are ``max_cells``. The error of four sisters (in one dimension: two) is
    the difference between their sum and their parent; a cell in which a peak may hide between the nodes has an
    upper bound of its mass as its error.
    """
    leaves = _first(log_density, num_data, box)
    while True:
        chosen = _to_split(leaves, num_data, tolerance, max_cells)
        if not chosen.any():
            return leaves
        leaves = leaves[~chosen].joined(_children(log_density, leaves[chosen], box))


def log_sum(values: Tensor, datum: Tensor, num_data: int) -> Tensor:
    """For each datum the log of the sum of exp(values) (P,) over its pairs: (num_data,)."""
    top = values.new_full((num_data,), -math.inf).scatter_reduce(0, datum, values, "amax")
    shift = torch.where(top.isfinite(), top, 0.0)
    return shift + values.new_zeros(num_data).index_add(0, datum, (values - shift[datum]).exp()).log()


def _first(log_density: LogDensity, num_data: int, box: Box) -> Leaves:
    device, d = box.lower.device, len(box.lower)
    one = torch.ones(1, dtype=torch.long, device=device)
    root = _Cells(0 * one, one, 0 * one, torch.zeros(1, d, dtype=torch.float64, device=device))
    for _ in range(_FIRST_LEVEL[d]):
        root = root.split()
    num = len(root.code)
    cells = _Cells(*(part.repeat(num_data, *[1] * (part.ndim - 1)) for part in root))
    cells = cells._replace(datum=torch.arange(num_data, device=device).repeat_interleave(num))
    sums = _evaluate(log_density, cells, box)
    outer = (cells.centre.abs() > _SHELL).any(1)
    return Leaves(*cells, outer, sums.log_mass, sums.log_bound, sums.mean, sums.covariance)


def _children(log_density: LogDensity, parents: Leaves, box: Box) -> Leaves:
    cells = _Cells(parents.datum, parents.code, parents.level, parents.centre).split()
    sums = _evaluate(log_density, cells, box)
    sisters = sums.log_mass.reshape(len(parents.code), -1)
    num = sisters.shape[1]
    share = _log_difference(sisters.logsumexp(1), parents.log_mass) - math.log(num)
    share = share.repeat_interleave(num)
    # what is below the rounding of the sum cannot be made smaller by splitting
    share = torch.where(share <= sums.log_noise, -math.inf, share)
    log_error = torch.where(sums.resolved, torch.minimum(share, sums.log_bound), sums.log_bound)
    outer = parents.outer.repeat_interleave(num)
    return Leaves(*cells, outer, sums.log_mass, log_error, sums.mean, sums.covariance)


def _to_split(leaves: Leaves, num_data: int, tolerance: float, max_cells: int) -> Tensor:
    log_mass = log_sum(leaves.log_mass, leaves.datum, num_data)
    log_error = log_sum(leaves.log_error, leaves.datum, num_data)
    count = torch.bincount(leaves.datum, minlength=num_data)
    unfinished = (log_error > log_mass + math.log(tolerance)) & (count < max_cells)
    # the errors below this threshold sum to less than half of the tolerance
    threshold = log_mass + math.log(tolerance / 2) - count.log()
    large = leaves.log_error > threshold[leaves.datum]
    return large & unfinished[leaves.datum] & (leaves.level < _LAST_LEVEL[leaves.centre.shape[1]])


class _Sums(NamedTuple):
    log_mass: Tensor
    log_bound: Tensor
    log_noise: Tensor
    resolved: Tensor
    mean: Tensor
    covariance: Tensor


def _evaluate(log_density: LogDensity, cells: _Cells, box: Box) -> _Sums:
    order = cells.code.argsort()
    sums = [_sums(log_density, part, box) for part in _chunks(_Cells(*(part[order] for part in cells)))]
    back = order.argsort()
    return _Sums(*(torch.cat(parts)[back] for parts in zip(*sums, strict=True)))


def _chunks(cells: _Cells) -> Iterator[_Cells]:
    """Neighbouring pairs, so many that neither their cells' nodes nor their tables take much memory."""
    rank = cells.code.unique_consecutive(return_inverse=True)[1].cpu().numpy()
    most = max(1, _CHUNK_NODES // _NUM_NODES[cells.centre.shape[1]] ** cells.centre.shape[1])
    start = 0
    while start < len(rank):
        end = min(start + _CHUNK_PAIRS, int(np.searchsorted(rank, rank[start] + most)))
        yield _Cells(*(part[start:end] for part in cells))
        start = end


def _sums(log_density: LogDensity, pairs: _Cells, box: Box) -> _Sums:
    nodes, log_weights = _rule(pairs.centre)
    code, cell = pairs.code.unique_consecutive(return_inverse=True)
    first = torch.searchsorted(cell, torch.arange(len(code), device=cell.device))
    half = (box.upper - box.lower) / 2
    width = half * (0.5 ** pairs.level[first].double()).unsqueeze(1)  # half the width of a cell
    centre = box.lower + half * (1 + pairs.centre[first])
    values = log_density(centre.unsqueeze(1) + nodes * width.unsqueeze(1), pairs.datum, cell)
    log_volume = width.log().sum(1)[cell]  # the rule's weights sum to 2^d
    top, spread = values.max(1).values, _finite_range(values)
    weighted = values + log_weights
    log_mass = weighted.logsumexp(1)
    mean, covariance = _moments((weighted - log_mass.unsqueeze(1)).exp().nan_to_num(0.0), nodes)
    log_mass = log_mass + log_volume
    scale = width[cell]
    return _Sums(
        log_mass,
        top + _HIDDEN_SHARE * spread + log_volume + nodes.shape[1] * math.log(2),
        log_mass + (_NOISE * (1 + top.abs())).log().nan_to_num(0.0),
        spread <= _RESOLVED_RANGE,
        centre[cell] + scale * mean,
        covariance * scale.unsqueeze(1) * scale.unsqueeze(2),
    )


def _finite_range(values: Tensor) -> Tensor:
    """Highest minus lowest of the finite values (P, M), which is 0 where there is none."""
    lowest = torch.where(values == -math.inf, math.inf, values).min(1).values
    return (values.max(1).values - lowest).clamp_min(0.0)


def _moments(weights: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (P, d) and covariance (P, d, d) of the nodes (M, d) under weights (P, M)."""
    mean = weights @ nodes
    squares = (weights @ (nodes.unsqueeze(1) * nodes.unsqueeze(2)).flatten(1)).unflatten(1, (nodes.shape[1], -1))
    return mean, squares - mean.unsqueeze(1) * mean.unsqueeze(2)


def _log_difference(a: Tensor, b: Tensor) -> Tensor:
    """log |exp(a) - exp(b)|."""
    larger = torch.maximum(a, b)
    return larger + torch.log(-torch.expm1(-(a - b).abs().nan_to_num(0.0)))


def _corners(like: Tensor) -> Tensor:
    """The 2^d corners of [-1, 1]^d, (2^d, d)."""
    d = like.shape[1]
    axis = like.new_tensor([-1.0, 1.0])
    return torch.cartesian_prod(*[axis] * d).reshape(-1, d)


def _rule(like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes (M, d) and log weights (M,) of the product rule on [-1, 1]^d."""
    d = like.shape[1]
    nodes, weights = (like.new_tensor(part) for part in np.polynomial.legendre.leggauss(_NUM_NODES[d]))
    grid = torch.cartesian_prod(*[nodes] * d).reshape(-1, d)
    return grid, torch.cartesian_prod(*[weights.log()] * d).reshape(-1, d).sum(1)
