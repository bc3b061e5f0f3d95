"""Classifier two-sample tests: can a classifier tell two samples apart?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probvae.errors import ShapeError
from probvae.foundation.checks import check_finite, check_matrix
from probvae.foundation.seed import isolated_seed

Floats = NDArray[np.float64]
_LARGEST = 10.0  # standardised features beyond it count as this: one outlier is no reason to move a boundary
_MAX_PRODUCTS = 100
_SMALLEST = 1e-300  # a p-value is never zero
_STRENGTH = 0.1  # scikit-learn's C: features that say little get small weights


@dataclass(frozen=True)
class C2ST:
    """``accuracy`` on ``num_judged`` cases that the classifier had not seen, 0.5 for equal distributions.

    ``p_value`` is that of at least so many hits by guessing, from the binomial distribution; it is randomised between
    its steps, so that it is uniform for equal distributions.
    """

    accuracy: float
    num_judged: int
    p_value: float

    def as_dict(self) -> dict[str, Any]:
        """As plain data; the standard error is the binomial one."""
        error = (self.accuracy * (1 - self.accuracy) / self.num_judged) ** 0.5
        return {"value": self.accuracy, "standard_error": error, "num_judged": self.num_judged}


def c2st(p: Tensor, q: Tensor, seed: int = 0) -> C2ST:
    r"""The classifier two-sample test of the samples ``p`` (N, d) and ``q`` (M, d).

    A logistic regression on z, its squares and its products learns from one half of each to tell them apart, and is
    judged on the other half. The best possible accuracy is 1/2 + TV(p, q) / 2, TV the total variation distance.
    The longer of the two samples is cut to the length of the other.

    Raises :class:`~probvae.errors.ShapeError` for samples of different widths.
    Source: Lopez-Paz and Oquab (2017), "Revisiting classifier two-sample tests", arXiv:1610.06545, section 3.

    >>> c2st(torch.randn(2000, 1), torch.randn(2000, 1) + 1).accuracy > 0.6  # 0.69 at best
    True
    """
    for sample, name in ((p, "p"), (q, "q")):
        check_matrix(sample, name=name)
        check_finite(sample, name)
    if p.shape[1] != q.shape[1]:
        raise ShapeError(f"q: expected {p.shape[1]} columns, as p has, got {q.shape[1]}. Compare the same quantities.")
    num = min(len(p), len(q)) // 2 * 2
    with isolated_seed(seed):
        rows = [sample[torch.randperm(len(sample))[:num]].double().cpu() for sample in (p, q)]
    joined = with_products(_standardised(torch.cat(rows)))
    kind = np.repeat([1.0, -1.0], num)
    learns = np.tile(np.arange(num) % 2 == 0, 2)
    score = _learned_score(_array(joined)[learns], kind[learns], _array(joined)[~learns], intercept=True)
    return _judged(score * kind[~learns])


def paired_c2st(first: Tensor, second: Tensor) -> C2ST:
    r"""Which of two is the true one? Features ``first`` (N, F) of the true z, ``second`` (N, F) of a drawn one.

    Row by row the two have the same x. A logistic regression on the difference of their features learns from the first
    half of the rows, and guesses for the second half; what depends on x alone cancels. Where both are from p(z|x), each
    guess is a coin toss, and the number of hits is binomial.

    Source: Lopez-Paz and Oquab (2017), arXiv:1610.06545; Breslow and Day (1980), chapter 7, for pairs with common x.

    >>> z = torch.randn(1000, 1)
    >>> paired_c2st(z + 1, torch.randn(1000, 1)).accuracy > 0.7  # Phi(1 / sqrt(2)) = 0.76 at best
    True
    """
    # equal infinities say nothing; different ones say all that can be said
    difference = (first - second).double().nan_to_num(nan=0.0, posinf=_LARGEST, neginf=-_LARGEST)
    half = len(difference) // 2
    size = difference[:half].square().mean(0).sqrt().clamp_min(1e-12)
    features = _array((difference / size).clamp(-_LARGEST, _LARGEST))
    sign = np.where(np.arange(half) % 2 == 0, 1.0, -1.0)  # a classifier wants to see both kinds
    score = _learned_score(features[:half] * sign[:, None], sign, features[half:], intercept=False)
    return _judged(score)


def with_products(z: Tensor) -> Tensor:
    """z (N, d), its squares and, where they are not too many, its products z_i z_j."""
    d = z.shape[1]
    if d * (d + 1) // 2 > _MAX_PRODUCTS:
        return torch.cat([z, z.square()], dim=1)
    i, j = torch.triu_indices(d, d)
    return torch.cat([z, z[:, i] * z[:, j]], dim=1)


def _standardised(z: Tensor) -> Tensor:
    return ((z - z.mean(0)) / z.std(0).clamp_min(1e-12)).clamp(-_LARGEST, _LARGEST)


def _learned_score(features: Floats, kind: Floats, judged: Floats, intercept: bool) -> Floats:
    """A score of the ``judged`` rows that is above zero where the classifier says 1."""
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(C=_STRENGTH, fit_intercept=intercept, max_iter=10_000)
    classifier.fit(features, kind)
    return judged @ classifier.coef_[0] + classifier.intercept_


def _judged(margin: Floats) -> C2ST:
    from scipy.stats import binom

    hits, num = int((margin > 0).sum()), len(margin)
    # The sizes of the margins say nothing of the hits: their digits are as good as a generator of one's own.
    place = np.random.default_rng(np.abs(margin).view(np.uint64)).random()
    p_value = binom.sf(hits, num, 0.5) + place * binom.pmf(hits, num, 0.5)
    if not margin.any():  # nothing was learned, and every margin is a tie
        p_value = 1.0
    return C2ST(hits / num, num, max(float(p_value), _SMALLEST))


def _array(values: Tensor) -> Floats:
    return np.asarray(values.cpu().numpy(), dtype=np.float64)
