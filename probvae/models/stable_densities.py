"""Densities that keep their digits where the textbook formula subtracts large numbers from each other.

In: Student t for any degrees of freedom, the normal by its Cholesky factor, and the pieces of Loader's saddle-point
form for counts of any size.
Out: the likelihoods and priors themselves, which build their distributions from these.
"""

import math
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor

from probvae.foundation.torch_internals import check_value, instance_for_expand

# Beyond this many multiples of sqrt(nu) the square of the residual is taken apart, so that it cannot overflow.
_FAR = 1e3
# The arguments of the series below are shifted up to this number, where eight terms are exact to 1e-17.
_SHIFT = 16
# (2^(1 - 2n) - 2) B_2n / (2n (2n - 1)): log Gamma(h + 1/2) - log Gamma(h) - log(h) / 2 in odd powers of 1/h.
_HALF_STEP = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224, -5461 / 425984, 929569 / 15728640)
# B_2n / (2n (2n - 1)): the error of Stirling's formula in odd powers of 1/y.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)


class StableStudentT(dist.StudentT):
    r"""Student t whose density is right to rounding for all degrees of freedom: it becomes the normal one.

    .. math:: \log p(x) = G(\nu/2) - \tfrac12 \log 2\pi - \log s - \tfrac{\nu + 1}{2} \log(1 + r^2), \qquad
              r = \frac{x - \mu}{s \sqrt\nu}, \quad
              G(h) = \log \frac{\Gamma(h + 1/2)}{\Gamma(h) \sqrt{h}}

    G is a series where torch subtracts two log-gammas as large as nu log nu; it tends to 0. ``degrees`` is a number.
    """

    def __init__(self, degrees: float, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.degrees = float(degrees)
        super().__init__(torch.full_like(loc, self.degrees), loc, scale, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StableStudentT":
        shape = torch.Size(batch_shape)
        return StableStudentT(self.degrees, self.loc.expand(shape), self.scale.expand(shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p (..., D) of ``value`` (..., D), in nats."""
        check_value(self, value)
        constant = log_gamma_half_step(self.degrees / 2) - 0.5 * math.log(2 * math.pi)
        ratio = (value - self.loc) / (self.scale * math.sqrt(self.degrees))
        return constant - 0.5 * (self.degrees + 1) * _log1p_square(ratio) - self.scale.log()


class StableMultivariateNormal(dist.MultivariateNormal):
    r"""N(m, L L^T) by its Cholesky factor L, whose log density keeps its digits where the entries of a row of L cancel.

    .. math:: \log p(x) = -\tfrac12 |L^{-1} (x - m)|^2 - \sum_i \log L_{ii} - \tfrac d2 \log 2\pi

    Nearly dependent coordinates make L^-1 (x - m) a difference of large numbers, so it is taken in float64; the result
    has the dtype of ``loc`` (..., d).
    """

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StableMultivariateNormal":
        new = instance_for_expand(self, StableMultivariateNormal, _instance)
        return super().expand(batch_shape, new)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p (...) of ``value`` (..., d), in nats."""
        check_value(self, value)
        factor, offset = self.scale_tril.double(), value.double() - self.loc.double()
        inverse = torch.linalg.solve_triangular(factor, torch.eye(factor.shape[-1]).to(factor), upper=False)
        noise = torch.einsum("...ij,...j->...i", inverse, offset)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = 0.5 * noise.shape[-1] * math.log(2 * math.pi)
        return (-0.5 * noise.square().sum(-1) - log_det - constant).to(self.loc.dtype)


def log_gamma_half_step(h: float) -> float:
    """log Gamma(h + 1/2) - log Gamma(h) - log(h) / 2 for h > 0, of order -1 / (8 h)."""
    steps = max(0, math.ceil(_SHIFT - h))
    top = h + steps
    series = sum(term / top ** (2 * n + 1) for n, term in enumerate(_HALF_STEP))
    shifted = math.fsum(math.log1p(0.5 / (h + i)) for i in range(steps))
    return series - shifted + (0.5 * math.log1p(steps / h) if steps else 0.0)


def _log1p_square(ratio: Tensor) -> Tensor:
    """log(1 + r^2), also where r^2 overflows."""
    size = torch.where(ratio > 0, ratio, -ratio)
    near, far = size.clamp(max=_FAR), size.clamp(min=_FAR)
    return torch.where(size < _FAR, near.square().log1p(), 2 * far.log() + far.square().reciprocal().log1p())


def stirling_error(y: Tensor) -> Tensor:
    """log Gamma(y + 1) - (y + 1/2) log y + y - log(2 pi) / 2 for y > 0, in the dtype of ``y`` (any shape)."""
    large = y.clamp(min=_SHIFT)
    square = large.reciprocal().square()
    series = torch.full_like(large, _STIRLING[-1])
    for term in reversed(_STIRLING[:-1]):
        series = series * square + term
    small = y.clamp(max=_SHIFT)
    direct = (small + 1).lgamma() - (small + 0.5) * small.log() + small - 0.5 * math.log(2 * math.pi)
    return torch.where(y < _SHIFT, direct, series / large)


def deviance(excess: Tensor, log_ratio: Tensor) -> Tensor:
    """delta - log(1 + delta) >= 0 for ``excess`` delta > -1, whose logarithm is ``log_ratio`` where delta is not small.

    Source: Loader (2000), "Fast and accurate computation of binomial probabilities".
    """
    near = excess.abs() < 0.5
    safe = torch.where(near, excess, 0.0)
    return torch.where(near, safe - safe.log1p(), excess - log_ratio)
