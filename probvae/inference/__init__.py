"""Everything about q: encoders, guides, objectives, and the fit."""

from probvae.inference.densities.kl import analytic_kl
from probvae.inference.densities.traces import LogWeights, log_weights
from probvae.inference.encoders import ConvEncoder, Encoder, LinearEncoder, MaskedEncoder, MLPEncoder
from probvae.inference.evaluation.bounds import (
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
from probvae.inference.evaluation.imputation import Imputed, impute
from probvae.inference.evaluation.variance import equivalent_variance, optimal_variance
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
from probvae.inference.guides.best_diagonal import best_diagonal_guide
from probvae.inference.linear.closed_form_model import has_exact_posterior
from probvae.inference.linear.exact import exact_log_evidence, exact_posterior, posterior_moments, posterior_precision
from probvae.inference.linear.exact_imputation import Imputation, conditional_covariance, impute_exact
from probvae.inference.linear.gaussian_gaps import diagonal_gap, forward_diagonal_gap, isotropic_gap
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
from probvae.inference.training.fit import fit
from probvae.inference.training.loop import FitResult

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
