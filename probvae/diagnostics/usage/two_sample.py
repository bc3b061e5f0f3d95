"""The two-sample test: do two sets of vectors come from one distribution?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from probvae.diagnostics.prediction.monte_carlo import family_p_value

NUM_PERMUTATIONS = 4999


@dataclass(frozen=True)
class TwoSampleResult:
    """``p_value``, and the ``difference`` that is largest for its error: "mean", "standard deviation", "skewness",
    "kurtosis" or "correlation", of one dimension (two for the last), counted from zero; ``size`` is its size, in
    standard deviations of both sets together.
    """

    p_value: float
    difference: tuple[str, tuple[int, ...]]
    size: float


def two_sample_test(
    first: Tensor, second: Tensor, *, paired: bool = False, num_permutations: int = NUM_PERMUTATIONS
) -> TwoSampleResult:
    r"""A permutation test of (N, d) against (M, d) draws, with two statistics judged together.

    All vectors are put on normal scores first, dimension by dimension, by their ranks in the pooled sample; nothing
    depends on units or on a far outlier then. The statistics are the energy distance

    .. math:: E = 2\,\overline{|z - z'|} - \overline{|z - \tilde z|} - \overline{|z' - \tilde z'|}

    which sees every difference, and the largest difference between the means of the features z_j, z_j^2 - 1,
    z_j^3 - 3 z_j, z_j^4 - 6 z_j^2 + 3 and z_j z_k, each in units of its standard deviation, which sees one dimension or
    one correlation among many. All permutations are taken in one matrix product; the p-value is that of
    :func:`~probvae.diagnostics.monte_carlo.family_p_value`, exact for any N, M and d. ``paired`` swaps within the pairs
    (first_n, second_n) only, which need not be alike. The permutations come from torch's generator.

    Source: Szekely and Rizzo (2004), "Testing for equal distributions in high dimension".

    >>> z = torch.arange(20.0).reshape(10, 2)
    >>> two_sample_test(z, z + 9, num_permutations=99).difference
    ('mean', (0,))
    """
    scores = _normal_scores(torch.cat([first, second]).double())
    members = (_swaps if paired else _permutations)(num_permutations, len(first), len(second)).to(scores)
    weights = members / len(first) - (1 - members) / len(second)
    features, names = _features(scores)
    differences = (weights @ features).abs()
    statistics = torch.stack([energy_distances(scores, weights), differences.max(1).values], dim=1)
    largest = int(differences[0].argmax())
    p_value = family_p_value(statistics, two_sided=False)
    return TwoSampleResult(p_value, names[largest], float(differences[0, largest]))


def energy_distances(z: Tensor, weights: Tensor) -> Tensor:
    """The energy distance (B,) between the sets of each row of ``weights`` (B, P): 1/N in the first, -1/M in the other.

    >>> energy_distances(torch.tensor([[0.0], [1.0], [4.0]]), torch.tensor([[1.0, -0.5, -0.5]]))  # 2 * 2.5 - 0 - 1.5
    tensor([3.5000])
    """
    return -((weights @ torch.cdist(z, z)) * weights).sum(1)


def _normal_scores(values: Tensor) -> Tensor:
    columns = values.mT.contiguous()
    ordered = columns.sort(1).values
    # Equal values share the middle of their ranks.
    ranks = sum(torch.searchsorted(ordered, columns, right=right).double() for right in (False, True))
    return torch.special.ndtri(torch.as_tensor(ranks).mT / (2 * len(values)))


def _permutations(number: int, num_first: int, num_second: int) -> Tensor:
    """The members of the first set, (number + 1, N + M): as they are, then at random."""
    size = num_first + num_second
    shuffled = torch.rand(number, size).argsort(1)
    return torch.cat([torch.arange(size)[None], shuffled]) < num_first


def _swaps(number: int, num_first: int, num_second: int) -> Tensor:
    assert num_first == num_second
    kept = torch.cat([torch.ones(1, num_first), torch.randint(2, (number, num_first)).float()])
    return torch.cat([kept, 1 - kept], dim=1).bool()


def _features(z: Tensor) -> tuple[Tensor, list[tuple[str, tuple[int, ...]]]]:
    """Hermite polynomials up to the fourth and products of two dimensions, (P, F), standardised; and their names."""
    d = z.shape[1]
    rows, columns = torch.tril_indices(d, d, offset=-1)
    powers = [z, z.square() - 1, z**3 - 3 * z, z**4 - 6 * z.square() + 3]
    features = torch.cat([*powers, z[:, rows] * z[:, columns]], dim=1)
    kinds = ("mean", "standard deviation", "skewness", "kurtosis")
    names: list[tuple[str, tuple[int, ...]]] = [(kind, (j,)) for kind in kinds for j in range(d)]
    names += [("correlation", (k, j)) for j, k in zip(rows.tolist(), columns.tolist(), strict=True)]
    return features / features.std(0, correction=0), names
