"""Data as points of the latent space."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from probvae.inference import posterior_mean, posterior_scale
from probvae.inference.pair import VAE


class Codes(NamedTuple):
    """q_x(z) of N data: ``mean`` (N, d), standard deviations ``scale`` (N, d), and ``labels`` (N,) or None."""

    mean: Tensor
    scale: Tensor
    labels: np.ndarray | None


def encode(vae: VAE, x: Tensor, labels: Sequence[Any] | np.ndarray | None = None) -> Codes:
    """Mean and standard deviation of q_x(z) for each row of ``x`` (N, D); ``labels`` (N,) are kept beside them.

    A conditional VAE is given its covariates first, ``vae.given(y)``.

    >>> encode(VAE.example(), torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    return Codes(posterior_mean(vae, x), posterior_scale(vae, x), None if labels is None else np.asanyarray(labels))
