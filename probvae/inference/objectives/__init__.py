"""What a fit maximises. To add an objective: one new file here and one line below."""

from probvae.foundation.exports import export_public_names

from .analytic_kl import AnalyticKLObjective as AnalyticKLObjective
from .base import Objective as Objective
from .base import StepLoss as StepLoss
from .base import resolve_objective as resolve_objective
from .dreg import DReGObjective as DReGObjective
from .elbo import ELBOObjective as ELBOObjective
from .iwae import IWAEObjective as IWAEObjective
from .mmd import MMDObjective as MMDObjective
from .renyi import RenyiObjective as RenyiObjective
from .sticking_the_landing import STLObjective as STLObjective

export_public_names(__name__)
