"""ArviZ's Pareto smoothing, by the name that the installed version has for it."""

import numpy as np
import torch

from probvae.foundation.text import quiet_arviz

arviz = quiet_arviz()

OLD_ARVIZ = int(arviz.__version__.split(".")[0]) < 1


def arviz_psislw(log_weights: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed log weights, normalised, and k."""
    columns = log_weights.T.numpy().copy()
    if OLD_ARVIZ:
        smoothed, k = arviz.psislw(columns)
    else:
        from arviz_stats.base import array_stats

        smoothed, k = array_stats.psislw(-columns)  # it takes log likelihoods
    return smoothed.T, k
