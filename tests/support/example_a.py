"""Running example A: a linear-Gaussian model with d = 2 and D = 3, whose posterior and evidence are known."""

import torch
from torch import Tensor

from probvae.inference.guides.base import LOG_SCALE_BOUND
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, StandardNormalPrior

W = torch.tensor([[1.0, 0.5], [0.3, 1.2], [-0.7, 0.4]], dtype=torch.float64)
B = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
C = 0.25
X = torch.tensor([[0.8, -0.5, 1.1], [0.2, 0.3, -0.4]], dtype=torch.float64)
LOG_P = torch.tensor([-5.037948468714025, -3.573368533734272], dtype=torch.float64)


def model() -> LatentModel:
    """p(z) p(x|z) of the example, in float64."""
    decoder = LinearDecoder(latent_dim=2, data_dim=3).double()
    with torch.no_grad():
        decoder.weight.copy_(W)
        decoder.bias.copy_(B)
    return LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(3, variance=C)).double()


def precision() -> Tensor:
    """P = I + W^T W / c."""
    return torch.eye(2, dtype=torch.float64) + W.T @ W / C


def raw_scale(scale: Tensor) -> Tensor:
    """The inverse of ``bounded_scale``."""
    return LOG_SCALE_BOUND * torch.atanh(scale.log() / LOG_SCALE_BOUND)


@torch.no_grad()
def set_affine_guide(guide: torch.nn.Module, scale_tril: Tensor) -> None:
    """Give a guide with a linear encoder the exact posterior mean, and the constant covariance L L^T."""
    slope = torch.linalg.solve(precision(), W.T / C)
    guide.loc.weight.copy_(slope)
    guide.loc.bias.copy_(-slope @ B)
    scale = scale_tril.diagonal()
    guide.log_scale.bias.copy_(raw_scale(scale))
    if getattr(guide, "dependence", None) is not None:
        rows, columns = torch.tril_indices(2, 2, offset=-1)
        guide.dependence.bias.copy_((scale_tril / scale[:, None])[rows, columns])
