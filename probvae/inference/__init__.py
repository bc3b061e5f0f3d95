"""Everything about q: encoders, guides, objectives, and the fit."""

from probvae.inference.best_guides import best_diagonal_guide
from probvae.inference.encoders import ConvEncoder, Encoder, LinearEncoder, MaskedEncoder, MLPEncoder
from probvae.inference.evaluation import (
    Bound,
    bound,
    elbo,
    limited_memory,
    plug_in_loss,
    posterior_mean,
    posterior_scale,
    reconstruct,
    reconstruction_error,
)
from probvae.inference.exact import exact_log_evidence, exact_posterior, posterior_moments, posterior_precision
from probvae.inference.fit import fit
from probvae.inference.gaussian_gaps import diagonal_gap, forward_diagonal_gap, isotropic_gap
from probvae.inference.guides import (
    ConstrainedGuide,
    DiagonalGuide,
    ExactGuide,
    FlowGuide,
    FreeGuide,
    FullCovarianceGuide,
    Guide,
    LocalGuide,
    LowRankGuide,
    MixtureGuide,
    PerDatumGuide,
    SemiAmortizedGuide,
)
from probvae.inference.imputation import Imputation, conditional_covariance, impute_exact
from probvae.inference.kl import analytic_kl
from probvae.inference.linear_gaussian import has_exact_posterior
from probvae.inference.missing import Imputed, impute
from probvae.inference.objectives import (
    AnalyticKLObjective,
    DReGObjective,
    ELBOObjective,
    IWAEObjective,
    MMDObjective,
    Objective,
    RenyiObjective,
    STLObjective,
)
from probvae.inference.traces import LogWeights, log_weights
from probvae.inference.training import FitResult
from probvae.inference.variance import equivalent_variance, optimal_variance

__all__ = [
    "AnalyticKLObjective",
    "Bound",
    "ConstrainedGuide",
    "ConvEncoder",
    "DReGObjective",
    "DiagonalGuide",
    "ELBOObjective",
    "Encoder",
    "ExactGuide",
    "FitResult",
    "FlowGuide",
    "FreeGuide",
    "FullCovarianceGuide",
    "Guide",
    "IWAEObjective",
    "Imputation",
    "Imputed",
    "LinearEncoder",
    "LocalGuide",
    "LogWeights",
    "LowRankGuide",
    "MLPEncoder",
    "MMDObjective",
    "MaskedEncoder",
    "MixtureGuide",
    "Objective",
    "PerDatumGuide",
    "RenyiObjective",
    "STLObjective",
    "SemiAmortizedGuide",
    "analytic_kl",
    "best_diagonal_guide",
    "bound",
    "conditional_covariance",
    "diagonal_gap",
    "elbo",
    "equivalent_variance",
    "exact_log_evidence",
    "exact_posterior",
    "fit",
    "forward_diagonal_gap",
    "has_exact_posterior",
    "impute",
    "impute_exact",
    "isotropic_gap",
    "limited_memory",
    "log_weights",
    "optimal_variance",
    "plug_in_loss",
    "posterior_mean",
    "posterior_moments",
    "posterior_precision",
    "posterior_scale",
    "reconstruct",
    "reconstruction_error",
]
