"""q and the fit: everything that infers z, or log p(x), from x.

In: the pair of model and guide (``pair``) and its file (``model_file``), encoders, and a folder a subject, lowest
first: ``densities``, ``linear``, ``guides``, ``objectives``, ``compiled``, ``evaluation``, ``evidence``,
``training``, and ``programs``. A file imports from folders before its own in this list; model_file and pair stand
after ``guides``.
Out: the model p(z) p(x|z) (``probvae.models``), and what is concluded from a fit (``probvae.diagnostics``).
The doors are :class:`~probvae.VAE`, :func:`~probvae.fit`, :func:`~probvae.elbo` and :func:`~probvae.log_evidence`.
"""

from probvae.foundation.fit_options import FitOptions as FitOptions
from probvae.foundation.package import export_public_names

from .compiled.compiled_step import CompiledStep as CompiledStep
from .densities.kl import analytic_kl as analytic_kl
from .densities.traces import LogWeights as LogWeights
from .densities.traces import log_weights as log_weights
from .encoders import ConvEncoder as ConvEncoder
from .encoders import Encoder as Encoder
from .encoders import LinearEncoder as LinearEncoder
from .encoders import MaskedEncoder as MaskedEncoder
from .encoders import MLPEncoder as MLPEncoder
from .evaluation.bounds import Bound as Bound
from .evaluation.bounds import bound as bound
from .evaluation.bounds import elbo as elbo
from .evaluation.bounds import plug_in_loss as plug_in_loss
from .evaluation.bounds import posterior_mean as posterior_mean
from .evaluation.bounds import posterior_scale as posterior_scale
from .evaluation.bounds import reconstruct as reconstruct
from .evaluation.bounds import reconstruction_error as reconstruction_error
from .evaluation.imputation import Imputed as Imputed
from .evaluation.imputation import impute as impute
from .evaluation.memory import limited_memory as limited_memory
from .evaluation.refine import refine as refine
from .evaluation.variance import equivalent_variance as equivalent_variance
from .evaluation.variance import optimal_variance as optimal_variance
from .evidence.annealing import Bracket as Bracket
from .evidence.annealing import bracket_log_evidence as bracket_log_evidence
from .evidence.chains import NotAReferenceError as NotAReferenceError
from .evidence.chains import NutsResult as NutsResult
from .evidence.chains import nuts_reference as nuts_reference
from .evidence.log_evidence import log_evidence as log_evidence
from .guides import *
from .guides.best_diagonal import best_diagonal_guide as best_diagonal_guide
from .linear.closed_form_model import has_exact_posterior as has_exact_posterior
from .linear.exact import exact_log_evidence as exact_log_evidence
from .linear.exact import exact_posterior as exact_posterior
from .linear.exact import posterior_moments as posterior_moments
from .linear.exact import posterior_precision as posterior_precision
from .linear.exact_imputation import Imputation as Imputation
from .linear.exact_imputation import conditional_covariance as conditional_covariance
from .linear.exact_imputation import impute_exact as impute_exact
from .linear.gaussian_gaps import diagonal_gap as diagonal_gap
from .linear.gaussian_gaps import forward_diagonal_gap as forward_diagonal_gap
from .linear.gaussian_gaps import isotropic_gap as isotropic_gap
from .objectives import *
from .pair import VAE as VAE
from .pair import load as load
from .training.fit import fit as fit
from .training.loop import FitResult as FitResult
from .training.probabilistic_pca import fit_probabilistic_pca as fit_probabilistic_pca
from .training.probabilistic_pca import num_active_directions as num_active_directions
from .training.probabilistic_pca import ppca_max_elbo as ppca_max_elbo

export_public_names(__name__)
