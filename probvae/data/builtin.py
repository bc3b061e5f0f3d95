"""Sets that need no download: scikit-learn's bundled ones, and a synthetic one with known truth."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from probvae.data.dataset import Dataset, LinearGaussianTruth
from probvae.data.on_disk import IN_MEMORY_LIMIT, fits_in_memory
from probvae.errors import DataError, unknown_name
from probvae.foundation.checks import check_count, check_positive


def digits(seed: int) -> Dataset:
    """The 1797 digits as counts from 0 to 16."""
    table = _digits_table()
    return Dataset(table[:, :-1].astype(np.float32), "digits", table[:, -1].astype(int), image_shape=(8, 8))


def _digits_table() -> np.ndarray:
    """64 pixels and the label (1797, 65), from scikit-learn's file: importing scikit-learn takes ten times as long."""
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


def iris(seed: int) -> Dataset:
    """Fisher's iris."""
    from sklearn.datasets import load_iris

    return _table(load_iris(), "iris")


def wine(seed: int) -> Dataset:
    """Wine recognition."""
    from sklearn.datasets import load_wine

    return _table(load_wine(), "wine")


def breast_cancer(seed: int) -> Dataset:
    """Breast cancer Wisconsin (diagnostic)."""
    from sklearn.datasets import load_breast_cancer

    return _table(load_breast_cancer(), "breast-cancer")


def linear_gaussian(seed: int, options: Mapping[str, Any] | None = None) -> Dataset:
    r"""x = W z + b + sqrt(c) eps with z and eps standard normal; W and b are drawn too, and kept as the truth."""
    defaults = {"num_data": 1000, "data_dim": 10, "latent_dim": 2, "variance": 0.1, "seed": seed}
    for name in options or {}:
        if name not in defaults:
            raise unknown_name("option of linear-gaussian", name, defaults)
    chosen: dict[str, Any] = {**defaults, **(options or {})}
    for name in ("num_data", "data_dim", "latent_dim"):
        check_count(chosen[name], name)
    check_count(chosen["seed"], "seed", least=0)
    check_positive(chosen["variance"], "variance")
    rows, columns = chosen["num_data"] + chosen["data_dim"], chosen["data_dim"] + chosen["latent_dim"]
    if not fits_in_memory((rows, columns), np.dtype(np.float64).itemsize, IN_MEMORY_LIMIT):
        raise DataError(f"options: {rows} x {columns} simulated numbers do not fit into memory. Ask for fewer.")
    return _simulate(**chosen)


def _simulate(num_data: int, data_dim: int, latent_dim: int, variance: float, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(data_dim, latent_dim)), rng.normal(size=data_dim)
    z, noise = rng.normal(size=(num_data, latent_dim)), rng.normal(size=(num_data, data_dim))
    x = (z @ weight.T + bias + np.sqrt(variance) * noise).astype(np.float32)
    return Dataset(x, "linear-gaussian", truth=LinearGaussianTruth(weight, bias, variance))


def _table(bunch: Any, name: str) -> Dataset:
    names = tuple(str(feature) for feature in bunch.feature_names)
    labels = np.asarray(bunch.target_names)[bunch.target].astype(str)
    return Dataset(bunch.data.astype(np.float64), name, labels, feature_names=names)
