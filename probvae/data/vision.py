"""MNIST and its kin, read by torchvision."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from probvae.data.dataset import Dataset
from probvae.errors import ConfigError, DataError

# Operators that torchvision's Python code refers to. Its wheel on PyPI is built against CUDA: beside a CPU-only torch
# the library of operators cannot be loaded, and the import fails, although reading data sets needs none of them.
# Declaring their schemas, without an implementation, lets the import go through.
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
TAKES = ("data_dir", "split", "download")


def mnist(
    seed: int, data_dir: str | Path | None = None, split: str | None = None, download: bool | None = None
) -> Dataset:
    """LeCun's handwritten digits."""
    return _read("MNIST", "mnist", data_dir, split, download is not False)


def fashion_mnist(
    seed: int, data_dir: str | Path | None = None, split: str | None = None, download: bool | None = None
) -> Dataset:
    """Zalando's pieces of clothing."""
    return _read("FashionMNIST", "fashion-mnist", data_dir, split, download is not False)


def kmnist(
    seed: int, data_dir: str | Path | None = None, split: str | None = None, download: bool | None = None
) -> Dataset:
    """Cursive Japanese characters."""
    return _read("KMNIST", "kmnist", data_dir, split, download is not False)


def default_folder() -> Path:
    """``PROBVAE_DATA``, or a cache folder in the home directory."""
    return Path(os.environ.get("PROBVAE_DATA") or Path.home() / ".cache" / "probvae")


def _read(class_name: str, name: str, data_dir: str | Path | None, split: str | None, download: bool) -> Dataset:
    if split not in (None, "train", "test"):
        raise ConfigError(f"split: expected 'train' or 'test', got {split!r}.")
    folder = Path(data_dir) if data_dir is not None else default_folder()
    loader = getattr(import_torchvision().datasets, class_name)
    images = _open(loader, class_name, folder, split != "test", download)
    pixels = images.data.numpy()
    x = pixels.reshape(len(pixels), -1).astype(np.float32)
    return Dataset(x, name, images.targets.numpy(), image_shape=(pixels.shape[1], pixels.shape[2]))


def _open(loader: Callable[..., Any], class_name: str, folder: Path, train: bool, download: bool) -> Any:
    try:
        return loader(root=str(folder), train=train, download=False)
    except RuntimeError:
        pass  # not there: download
    except Exception as error:
        # torchvision meets damaged files with exceptions of all kinds, assertions among them
        raise DataError(f"data_dir: the {class_name} files in {folder} are damaged ({error}). Remove them.") from error
    if not download:
        raise DataError(
            f"data_dir: there is no {class_name} in {folder}, and nothing is downloaded into a folder that a run "
            f"names. Download it yourself: probvae fit --data NAME --data-dir {folder}"
        )
    try:
        return loader(root=str(folder), train=train, download=True)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"data_dir: no {class_name} in {folder}, and it could not be downloaded ({error}). Give data_dir, "
            f"the folder that holds {class_name}/raw."
        ) from error


def import_torchvision() -> ModuleType:
    """The module torchvision, whose data sets work even where its operators do not."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _forget_half_imported()
    _declare_missing_operators()
    return importlib.import_module("torchvision")


def _forget_half_imported() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_missing_operators() -> None:
    import torch

    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema)
