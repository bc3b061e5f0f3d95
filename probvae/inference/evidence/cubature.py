"""Adaptive integration over boxes of R^1 and R^2, for many densities at once that share their cells.

A cell is a dyadic part of the box. It is split for those data only whose integral needs it, and what depends on the
cell alone (the decoder) is computed once for all of these.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

LogDensity = Callable[[Tensor, Tensor, Tensor], Tensor]  # z (C, M, d), datum (P,), cell (P,) -> (P, M)

# A dimension; Gauss and Lobatto's rule. It has nodes on a cell's edges, so that no kink is out of its sight: within
# Gauss and Legendre's rule, one that lies between an edge and the first node leaves no trace in the error estimate.
_NUM_NODES = {1: 10, 2: 7}
_FIRST_LEVEL = {1: 5, 2: 3}  # the first grid has 2^level cells a dimension
_LAST_LEVEL = {1: 58, 2: 28}  # the 63 bits of a cell's code tell no finer cells apart
# The top of a quadratic rises above its highest node by less than the nodes' range (nats) times 0.065.
_HIDDEN_SHARE = 0.25
# A cell whose nodes differ by more nats than this may hide a peak between them; it is split, whatever it sums to.
_RESOLVED_RANGE = 20.0
# Errors of parent and children can be equal by chance, and their difference then looks like convergence: an error is
# not believed to fall by more than this in one halving. (At a kink it falls by 4 and 8; where smooth, by thousands.)
_LARGEST_FALL = {1: 4.0, 2: 16.0}
_CHUNK_NODES = 4096
_CHUNK_PAIRS = 8192
_HUGE = 300.0  # a log ratio of which exp can still be squared
_NOISE = 8 * torch.finfo(torch.float64).eps


class Box(NamedTuple):
    """The points between ``lower`` (d,) and ``upper`` (d,)."""

    lower: Tensor
    upper: Tensor


@dataclass
class Leaves:
    """P pairs of a datum and a cell; for each datum its cells tile the box.

    ``code`` names the cell; ``centre`` is in units of the box, [-1, 1]^d; ``log_mass`` is the log of the integral
    over the cell, ``log_change`` the log of its share of the last halving's change, ``log_error`` the log of what its
    error may be; ``sign`` is the direction of that change, -1 or 1, and 0 where the error is a bound instead;
    ``mean`` and ``covariance`` are those of z in the cell.
    """

    datum: Tensor
    code: Tensor
    level: Tensor
    centre: Tensor
    log_mass: Tensor
    log_change: Tensor
    log_error: Tensor
    sign: Tensor
    mean: Tensor
    covariance: Tensor

    def __getitem__(self, index: Tensor) -> Self:
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))

    def joined(self, other: Self) -> Self:
        """These and the others."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return type(self)(*(torch.cat(pair) for pair in pairs))


class _Cells(NamedTuple):
    """Pairs of a datum and a cell (P,), before the integrand is evaluated there."""

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


def nodes_of_a_cell(d: int) -> int:
    """How many points of R^d the rule takes in one cell."""
    return int(_NUM_NODES[d] ** d)


def integrate(log_density: LogDensity, num_data: int, box: Box, tolerance: float, max_cells: int) -> Leaves:
    r"""The integrals of ``num_data`` densities over the box, as cells that add up to them.

    Each datum's cells are split, those with the largest error first, until their errors sum to less than
    ``tolerance`` times the integral, or there are ``max_cells``. The error of four sisters (in one dimension: two) is
    the difference between their sum and their parent, or what their parent's was, divided by a constant; a cell in
    which a peak may hide between the nodes has an upper bound of its mass as its error.
    """
    leaves = _first(log_density, num_data, box)
    while True:
        chosen = _to_split(leaves, num_data, tolerance, max_cells)
        if not chosen.any():
            return leaves
        leaves = leaves[~chosen].joined(_children(log_density, leaves[chosen], box))


def total_error(leaves: Leaves, log_mass: Tensor) -> tuple[Tensor, Tensor]:
    r"""The error of each datum's integral (N,), and twice the plain sum of its cells' errors (N,), relative to it.

    The cells' errors e_k (changes on halving, with their signs) partly cancel; with bounds b_k the total is

    .. math:: \sum_k b_k + \min\Big(2 \sum_k |e_k|, \; \max\big(2 |\sum_k e_k|, \; 4 (\sum_k e_k^2)^{1/2}\big)\Big)
    """
    size = (leaves.log_error - log_mass[leaves.datum]).clamp(max=_HUGE).exp()
    signed = size * leaves.sign
    parts = torch.stack([size * (leaves.sign == 0), signed.abs(), signed, signed.square()], dim=1)
    bound, sure, net, squares = parts.new_zeros(len(log_mass), 4).index_add(0, leaves.datum, parts).unbind(1)
    return bound + torch.minimum(2 * sure, torch.maximum(2 * net.abs(), 4 * squares.sqrt())), bound + 2 * sure


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
    sign = torch.zeros_like(sums.log_mass)
    never = torch.full_like(sign, -math.inf)
    return Leaves(*cells, sums.log_mass, never, sums.log_bound, sign, sums.mean, sums.covariance)


def _children(log_density: LogDensity, parents: Leaves, box: Box) -> Leaves:
    cells = _Cells(parents.datum, parents.code, parents.level, parents.centre).split()
    sums = _evaluate(log_density, cells, box)
    num = len(cells.code) // len(parents.code)
    together = sums.log_mass.reshape(-1, num).logsumexp(1)
    change = (_log_difference(together, parents.log_mass) - math.log(num)).repeat_interleave(num)
    # a change below the rounding of the sum cannot be made smaller by splitting
    change = torch.where(change <= sums.log_noise, -math.inf, change)
    believed = parents.log_change - math.log(_LARGEST_FALL[cells.centre.shape[1]])
    error = torch.maximum(change, believed.repeat_interleave(num))
    halved = sums.resolved & (error < sums.log_bound)
    direction = (together - parents.log_mass).nan_to_num(0.0).sign().repeat_interleave(num)
    return Leaves(
        *cells,
        log_mass=sums.log_mass,
        log_change=change,
        log_error=torch.where(halved, error, sums.log_bound),
        sign=torch.where(halved, direction, 0.0),
        mean=sums.mean,
        covariance=sums.covariance,
    )


def _to_split(leaves: Leaves, num_data: int, tolerance: float, max_cells: int) -> Tensor:
    log_mass = log_sum(leaves.log_mass, leaves.datum, num_data)
    total, sure = total_error(leaves, log_mass)
    count = torch.bincount(leaves.datum, minlength=num_data)
    unfinished = (total > tolerance) & (count < max_cells)
    # the errors below this threshold, taken together in the same way, are less than half of the tolerance
    threshold = log_mass + (tolerance / 2 * (sure / total) / count).log()
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
    most = max(1, _CHUNK_NODES // nodes_of_a_cell(cells.centre.shape[1]))
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
    nodes, weights = (like.new_tensor(part) for part in _gauss_lobatto(_NUM_NODES[d]))
    grid = torch.cartesian_prod(*[nodes] * d).reshape(-1, d)
    return grid, torch.cartesian_prod(*[weights.log()] * d).reshape(-1, d).sum(1)


@lru_cache
def _gauss_lobatto(num_nodes: int) -> tuple[list[float], list[float]]:
    """Nodes and weights on [-1, 1], exact to degree 2 num_nodes - 3 (Abramowitz and Stegun 25.4.32)."""
    legendre = np.polynomial.Legendre.basis(num_nodes - 1)
    nodes = np.concatenate([[-1.0], np.sort(legendre.deriv().roots().real), [1.0]])
    return nodes.tolist(), (2 / (num_nodes * (num_nodes - 1) * legendre(nodes) ** 2)).tolist()
