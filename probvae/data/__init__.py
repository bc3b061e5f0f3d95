"""Data: named sets and files, their scaling and binarisation, checked before anything is fitted."""

from probvae.data.dataset import Dataset, LinearGaussianTruth
from probvae.data.load import DATASETS, DatasetSpec, load_data
from probvae.data.on_disk import RowsOnDisk
from probvae.data.transforms import BINARIZATIONS, SCALINGS, column_variances

__all__ = [
    "BINARIZATIONS",
    "DATASETS",
    "SCALINGS",
    "Dataset",
    "DatasetSpec",
    "LinearGaussianTruth",
    "RowsOnDisk",
    "column_variances",
    "load_data",
]
