"""What a section of the report is given, made by hand."""

from torch import Tensor

from probvae import VAE
from probvae.data import Dataset
from probvae.report.sections.base import Subject


def subject_of(vae: VAE, x: Tensor, image_shape: tuple[int, int] | None = None) -> Subject:
    """The rows ``x`` (N, D), without labels or results of diagnostics."""
    return Subject(vae, x, Dataset(x.numpy(), "rows", image_shape=image_shape))
