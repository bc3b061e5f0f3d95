"""The Cholesky factor of a learned covariance."""

import torch
from torch import Tensor

from probvae.errors import unknown_name

COVARIANCES = ("diagonal", "full")


def check_covariance(covariance: str) -> None:
    """Raise unless ``covariance`` is one of :data:`COVARIANCES`."""
    if covariance not in COVARIANCES:
        raise unknown_name("covariance", covariance, COVARIANCES)


def num_dependences(latent_dim: int, covariance: str) -> int:
    """The number of entries below the diagonal that are learned."""
    return latent_dim * (latent_dim - 1) // 2 if covariance == "full" else 0


def scale_tril(scale: Tensor, dependence: Tensor) -> Tensor:
    """L (..., d, d) = diag(s) (I + T) from ``scale`` s (..., d) and ``dependence``, the entries of the strictly lower
    triangular T (..., d (d - 1) / 2)."""
    d = scale.shape[-1]
    rows, columns = torch.tril_indices(d, d, offset=-1, device=scale.device)
    factor = torch.diag_embed(torch.ones_like(scale))
    factor[..., rows, columns] = dependence
    return scale.unsqueeze(-1) * factor
