"""Posterior collapse: latent dimensions that are off, and for a linear model those that must be."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from probvae.diagnostics.verdicts import FAIL, OK, WARN, Verdict
from probvae.inference.linear.closed_form_model import has_exact_posterior, linear_gaussian
from probvae.models import LatentModel

# A unit is active where Var_x(E_q z_j) is larger (Burda et al. 2016), in squared standard deviations of the prior.
ACTIVE_THRESHOLD = 0.01
# Eigenvalues of N data from a model without the direction are this far inside with probability 1 - exp(-t^2 / 2).
_STANDARD_ERRORS = 3.0
_NAME = "latent_usage/collapse"


@dataclass(frozen=True)
class LinearTheory:
    """How many latent directions a linear model with noise variance c has on at its optimum.

    ``expected`` by the eigenvalues of these data, l_j > c; ``least`` and ``most`` by those that are above or below c
    for more than the chance of N data. ``variance`` is c (the mean over the columns, where each has its own),
    ``largest`` the largest eigenvalue.
    """

    variance: float
    largest: float
    expected: int
    least: int
    most: int

    def summary(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def linear_theory(model: LatentModel, x: Tensor) -> LinearTheory | None:
    r"""The theory of collapse for a linear decoder, Gaussian noise and a Gaussian prior; None for any other model.

    At the optimum of the ELBO with noise variance c, exactly the directions with l_j <= c are off, l_j the eigenvalues
    of the data's covariance over N (in units of the noise, where each column has its own c). Singular values of N rows
    of pure noise lie within

    .. math:: \sqrt{c} \, \Big( 1 \pm \frac{\sqrt D + t}{\sqrt N} \Big) \quad \text{with probability } 1 - 2 e^{-t^2/2}

    so eigenvalues in that band (t = 3) may be on or off. ``x`` is (N, D); where entries are missing the covariance is
    not known, and the result is None too.

    Source: Lucas, Tucker, Grosse and Norouzi (2019), arXiv:1911.02469, section 4; Davidson and Szarek (2001), theorem
    II.13, for the band.

    >>> from probvae.models import LinearGaussianModel
    >>> x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # eigenvalues 2 and 1/2
    >>> linear_theory(LinearGaussianModel(torch.eye(2), variance=1.0), x).expected
    1
    """
    if not has_exact_posterior(model) or x.isnan().any():
        return None
    parts = linear_gaussian(model)
    if len(parts.prior.log_weights) > 1:
        return None
    scaled = ((x.to(parts.weight) - parts.bias) / parts.variance.sqrt()).double()
    singular = torch.linalg.svdvals(scaled - scaled.mean(0)) / math.sqrt(len(x))
    chance = (math.sqrt(x.shape[1]) + _STANDARD_ERRORS) / math.sqrt(len(x))
    # With fewer rows than columns eigenvalues are zero, which says nothing once the band reaches down to zero.
    reach = min(model.latent_dim, x.shape[1])
    most = reach if chance >= 1 else _count(singular, 1 - chance, reach)
    variance = float(parts.variance.mean())
    expected, least = (_count(singular, edge, reach) for edge in (1.0, 1 + chance))
    return LinearTheory(variance, variance * float(singular[0]) ** 2, expected, least, most)


def _count(singular: Tensor, edge: float, reach: int) -> int:
    return min(reach, int((singular > edge).sum()))


def num_active_directions(means: Tensor) -> int:
    """How many eigenvalues of the covariance of the posterior means (N, d), in prior standard deviations, are active.

    A linear model whose latent space is turned has every z_j on, however few directions it uses.
    """
    singular = torch.linalg.svdvals((means - means.mean(0)).double()) / math.sqrt(len(means))
    return int((singular.square() > ACTIVE_THRESHOLD).sum())


def collapse_verdict(used: Tensor, num_directions: int, theory: LinearTheory | None) -> Verdict:
    """The verdict on latents that are off, by ``used`` (d,), and by the theory where there is one."""
    status, message = _by_theory(used, num_directions, theory) if theory else _by_number(used)
    return Verdict(_NAME, status, float(num_directions if theory else used.sum()), _threshold(used, theory), message)


def _threshold(used: Tensor, theory: LinearTheory | None) -> float:
    return float(theory.least if theory else len(used))


def _by_number(used: Tensor) -> tuple[str, str]:
    off = (~used).nonzero()[:, 0].tolist()
    if not off:
        return OK, f"{_all(len(used))} used"
    if len(off) == len(used):
        return FAIL, (
            f"{_all(len(used))} off: q_x(z) is the same for every x, and the model ignores z. "
            "Try KL warm-up, free bits, a smaller noise variance c, or a decoder that explains less without z"
        )
    return WARN, (
        f"{len(off)} of {_latents(len(used))} are off ({_named(off)}): q_x is the same for every x there. "
        "Try longer training, KL warm-up, free bits or a smaller c"
    )


def _by_theory(used: Tensor, directions: int, theory: LinearTheory) -> tuple[str, str]:
    d, c = len(used), f"{theory.variance:.3g}"
    # A turned latent space has directions that are off, and not single z_j.
    what = _latents(d) if int(used.sum()) == directions else f"{d} latent directions"
    if directions < theory.least:
        return FAIL if directions == 0 else WARN, (
            f"{d - directions} of {what} are off, and for c = {c} at most {d - theory.least} should be: the data have "
            f"{theory.least} directions of more variance than c. Train longer, or with KL warm-up or free bits"
        )
    if directions > theory.most:
        return WARN, (
            f"{directions} of {what} are on, and only {theory.most} directions of the data have more variance than "
            f"c = {c}: the model does not belong to these data. Train longer, or lower c"
        )
    if directions == 0:
        return WARN, (
            f"All {what} are off, as they must be for c = {c}: the largest eigenvalue of the data's covariance is "
            f"{theory.largest:.3g}. The model says nothing of x; use a smaller c"
        )
    if directions == d:
        return OK, f"All {what} are used, as they must be for c = {c}"
    return OK, f"{d - directions} of {what} are off, as they must be for c = {c}"


def _all(number: int) -> str:
    return "The one latent is" if number == 1 else f"All {number} latents are"


def _latents(number: int) -> str:
    return "1 latent" if number == 1 else f"{number} latents"


def _named(indices: list[int]) -> str:
    names = [f"z_{index + 1}" for index in indices[:8]]
    return ", ".join(names) + (", ..." if len(indices) > 8 else "")
