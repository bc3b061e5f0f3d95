"""The variational autoencoder as a Bayesian model, which says how wrong its posterior is.

Names are looked up when they are first used, so that ``import probvae`` imports neither torch nor Pyro.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probvae.data import Dataset, load_data
    from probvae.diagnostics import posterior_gap
    from probvae.generation import sample
    from probvae.inference import (
        DiagonalGuide,
        ExactGuide,
        FitResult,
        FullCovarianceGuide,
        Guide,
        LinearEncoder,
        MLPEncoder,
        best_diagonal_guide,
        elbo,
        exact_log_evidence,
        exact_posterior,
        fit,
        impute,
        impute_exact,
        optimal_variance,
        plug_in_loss,
    )
    from probvae.inference.evidence import log_evidence
    from probvae.inference.refine import refine
    from probvae.models import (
        BernoulliLikelihood,
        ContinuousBernoulliLikelihood,
        GaussianLikelihood,
        LatentModel,
        Likelihood,
        LinearDecoder,
        LinearGaussianModel,
        MixturePrior,
        MLPDecoder,
        NormalPrior,
        Prior,
        StandardNormalPrior,
    )
    from probvae.probabilistic_pca import fit_probabilistic_pca
    from probvae.vae import VAE, load

__version__ = "0.1.0"

_HOMES = {
    "probvae.data": ("Dataset", "load_data"),
    "probvae.diagnostics": ("posterior_gap",),
    "probvae.generation": ("sample",),
    "probvae.inference.evidence": ("log_evidence",),
    "probvae.inference.refine": ("refine",),
    "probvae.probabilistic_pca": ("fit_probabilistic_pca",),
    "probvae.inference": (
        "DiagonalGuide",
        "ExactGuide",
        "FitResult",
        "FullCovarianceGuide",
        "Guide",
        "LinearEncoder",
        "MLPEncoder",
        "best_diagonal_guide",
        "elbo",
        "exact_log_evidence",
        "exact_posterior",
        "fit",
        "impute",
        "impute_exact",
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
        "LinearGaussianModel",
        "MLPDecoder",
        "MixturePrior",
        "NormalPrior",
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
    "ExactGuide",
    "FitResult",
    "FullCovarianceGuide",
    "GaussianLikelihood",
    "Guide",
    "LatentModel",
    "Likelihood",
    "LinearDecoder",
    "LinearEncoder",
    "LinearGaussianModel",
    "MLPDecoder",
    "MLPEncoder",
    "MixturePrior",
    "NormalPrior",
    "Prior",
    "StandardNormalPrior",
    "best_diagonal_guide",
    "elbo",
    "exact_log_evidence",
    "exact_posterior",
    "fit",
    "fit_probabilistic_pca",
    "impute",
    "impute_exact",
    "load",
    "load_data",
    "log_evidence",
    "optimal_variance",
    "plug_in_loss",
    "posterior_gap",
    "refine",
    "sample",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'probvae' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
