"""The variational autoencoder as a Bayesian model, which says how wrong its posterior is.

Names are looked up when they are first used, so that ``import probvae`` imports neither torch nor Pyro.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probvae.data import Dataset, load_data
    from probvae.generation import sample
    from probvae.inference import (
        DiagonalGuide,
        FitResult,
        FullCovarianceGuide,
        Guide,
        LinearEncoder,
        MLPEncoder,
        elbo,
        fit,
        optimal_variance,
        plug_in_loss,
    )
    from probvae.models import (
        BernoulliLikelihood,
        ContinuousBernoulliLikelihood,
        GaussianLikelihood,
        LatentModel,
        Likelihood,
        LinearDecoder,
        MLPDecoder,
        Prior,
        StandardNormalPrior,
    )
    from probvae.vae import VAE, load

__version__ = "0.1.0"

_HOMES = {
    "probvae.data": ("Dataset", "load_data"),
    "probvae.generation": ("sample",),
    "probvae.inference": (
        "DiagonalGuide",
        "FitResult",
        "FullCovarianceGuide",
        "Guide",
        "LinearEncoder",
        "MLPEncoder",
        "elbo",
        "fit",
        "optimal_variance",
        "plug_in_loss",
    ),
    "probvae.models": (
        "BernoulliLikelihood",
        "ContinuousBernoulliLikelihood",
        "GaussianLikelihood",
        "LatentModel",
        "Likelihood",
        "LinearDecoder",
        "MLPDecoder",
        "Prior",
        "StandardNormalPrior",
    ),
    "probvae.vae": ("VAE", "load"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "VAE",
    "BernoulliLikelihood",
    "ContinuousBernoulliLikelihood",
    "Dataset",
    "DiagonalGuide",
    "FitResult",
    "FullCovarianceGuide",
    "GaussianLikelihood",
    "Guide",
    "LatentModel",
    "Likelihood",
    "LinearDecoder",
    "LinearEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "Prior",
    "StandardNormalPrior",
    "elbo",
    "fit",
    "load",
    "load_data",
    "optimal_variance",
    "plug_in_loss",
    "sample",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'probvae' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
