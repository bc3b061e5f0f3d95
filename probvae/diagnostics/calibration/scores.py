"""z-scores of the true z in the guide's standard deviations, and how often chance alone gives such scores."""

import torch
from torch import Tensor

from probvae.diagnostics.prediction.monte_carlo import family_p_value

# Data sets that chance makes: as many as the entries allow (N d each), in these bounds.
_MOST_SETS, _LEAST_SETS, _MOST_ENTRIES = 1999, 499, 2 * 10**7
_ENTRIES_AT_ONCE = 2**22


def num_exchanges(num_pairs: int, latent_dim: int) -> int:
    """How many data sets chance makes for ``num_pairs`` rows of ``latent_dim`` scores, so that it costs a second."""
    return max(_LEAST_SETS, min(_MOST_SETS, _MOST_ENTRIES // (num_pairs * latent_dim)))


def exchanged_sums(scores: Tensor, num_sets: int) -> Tensor:
    r"""Sums of scores and of their squares over the data, (B + 1, 2, d): those of the truth, then of B sets by chance.

    ``scores`` (L + 1, N, d) are those of the truth and of L draws. A set takes for each datum n one of its L + 1 scores
    at random, the same for all d. Where the truth is exchangeable with the draws, it is such a choice itself, so the
    B + 1 rows are exchangeable. Sums of parts of the data can be added. The choices come from torch's generator.

    >>> exchanged_sums(torch.tensor([[[2.0]], [[-2.0]]]), num_sets=3)[:, 1, 0]  # every choice has the square 4
    tensor([4., 4., 4., 4.], dtype=torch.float64)
    """
    values = scores.double()
    num_choices, num_data, latent_dim = values.shape
    rows = torch.arange(num_data, device=values.device)
    sums = [_sums(values[:1])]
    left, at_once = num_sets, max(1, _ENTRIES_AT_ONCE // (num_data * latent_dim))
    while left > 0:
        choice = torch.randint(num_choices, (min(left, at_once), num_data), device=values.device)
        sums.append(_sums(values[choice, rows]))
        left -= at_once
    return torch.cat(sums)


def _sums(values: Tensor) -> Tensor:
    return torch.stack([values.sum(1), values.square().sum(1)], dim=1)


def mean_p_value(sums: Tensor, num_data: int) -> float:
    r"""The two-sided p-value of the mean score for the :func:`exchanged_sums` (B + 1, 2, d) of ``num_data`` data.

    .. math:: t_j = \bar v_j \Big/ \sqrt{\tfrac1N \big( \overline{v_j^2} - \bar v_j^2 \big)}

    The mean is studentised by the scores' own spread, in each set alike, so that a guide of the wrong width and the
    right mean is not rejected. The p-value is the rank of the largest \|t_j\| among the B sets: uniform (or larger)
    where truth and draws are exchangeable, whatever their distribution is, and never zero.
    Source: Janssen (1997), "Studentized permutation tests for non-i.i.d. hypotheses", for studentised exchanges.

    >>> values = torch.randn(20, 50, 2)
    >>> mean_p_value(exchanged_sums(torch.cat([values[:1] + 2, values]), 499), 50) < 0.01
    True
    """
    mean, squares = (sums / num_data).unbind(1)
    return family_p_value(mean / ((squares - mean.square()) / num_data).clamp_min(1e-300).sqrt(), light_tails=True)


def spread_p_value(sums: Tensor, num_data: int) -> float:
    """The two-sided p-value of the mean squared score: the guide's width, or its mean; see :func:`mean_p_value`.

    >>> values = torch.randn(20, 50, 2)
    >>> spread_p_value(exchanged_sums(torch.cat([values[:1] * 3, values]), 499), 50) < 0.01
    True
    """
    return family_p_value(sums[:, 1] / num_data, light_tails=True)
