"""Everything about q: encoders, guides, objectives, and the fit."""

from probvae.inference.encoders import Encoder, LinearEncoder, MLPEncoder
from probvae.inference.evaluation import (
    Bound,
    bound,
    elbo,
    plug_in_loss,
    posterior_mean,
    posterior_scale,
    reconstruct,
    reconstruction_error,
)
from probvae.inference.fit import FitResult, fit
from probvae.inference.guides import DiagonalGuide, FullCovarianceGuide, Guide
from probvae.inference.kl import analytic_kl
from probvae.inference.objectives import AnalyticKLObjective, ELBOObjective, Objective
from probvae.inference.traces import LogWeights, log_weights
from probvae.inference.variance import optimal_variance

__all__ = [
    "AnalyticKLObjective",
    "Bound",
    "DiagonalGuide",
    "ELBOObjective",
    "Encoder",
    "FitResult",
    "FullCovarianceGuide",
    "Guide",
    "LinearEncoder",
    "LogWeights",
    "MLPEncoder",
    "Objective",
    "analytic_kl",
    "bound",
    "elbo",
    "fit",
    "log_weights",
    "optimal_variance",
    "plug_in_loss",
    "posterior_mean",
    "posterior_scale",
    "reconstruct",
    "reconstruction_error",
]
