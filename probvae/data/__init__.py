"""Data: named sets and files, their scaling and binarisation, checked before anything is fitted.

In: ``load`` (the door), the sets that it knows (``builtin``, ``vision``), files of the user's (``user_files``, and
``on_disk`` for arrays that stay there) and DataFrames (``frames``, ``arrow_tables``), data in the precision of their
source (``raw_data``), ``transforms`` with the scalings of ``older_runs``, ``binarization``, and the result with its
checks, ``dataset``.
Out: the split into training and held-out rows, which is :mod:`probvae.experiments`; minibatches, which are
:mod:`probvae.inference`; covariates as columns for networks, which are :mod:`probvae.models`.
The door is :func:`load_data`, which returns a :class:`Dataset`.
"""

from probvae.foundation.package import export_public_names

from .binarization import BINARIZATIONS as BINARIZATIONS
from .dataset import Dataset as Dataset
from .dataset import LinearGaussianTruth as LinearGaussianTruth
from .load import DATASETS as DATASETS
from .load import DatasetSpec as DatasetSpec
from .load import load_data as load_data
from .on_disk import RowsOnDisk as RowsOnDisk
from .transforms import SCALINGS as SCALINGS
from .transforms import Transform as Transform
from .transforms import column_variances as column_variances

export_public_names(__name__)
