"""The quantities that a fit maximises: one file for each.

In: the contract (``base``), Pyro's own losses (``_pyro``), and the registered objectives.
Out: the steps that follow their gradient (``training``, ``compiled``); bounds of a fitted pair (``evaluation``).
The door is :class:`~probvae.inference.Objective`.

To add an objective: one new file here and one line below.
"""

from probvae.foundation.package import export_public_names

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
