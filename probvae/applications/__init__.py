"""Tasks on a fitted model, one file a task.

In: ``sampling`` (new data), ``encoding`` (data as points of the latent space), ``reconstruction`` (data beside what the
model makes of them), ``missing_entries`` (filled with draws and intervals), and ``fitted_run`` (a run folder with its
own data, or with others prepared in the same way). A task takes a VAE and data, and returns a table of named arrays.
Out: the mathematics, which is :mod:`probvae.inference`; whether the model can be trusted, which is
:mod:`probvae.diagnostics`; pictures and pages, which are :mod:`probvae.report`.
The door is :func:`open_run`; each task is one function.
"""

from probvae.foundation.package import export_public_names

from .encoding import Codes as Codes
from .encoding import encode as encode
from .fitted_run import FittedRun as FittedRun
from .fitted_run import open_run as open_run
from .missing_entries import Filled as Filled
from .missing_entries import fill_missing as fill_missing
from .reconstruction import Reconstructions as Reconstructions
from .reconstruction import reconstruct_and_compare as reconstruct_and_compare
from .sampling import Sample as Sample
from .sampling import sample as sample

export_public_names(__name__)
