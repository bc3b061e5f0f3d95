"""The data of a fit before its first step: checked, in the dtype of the parameters, the validation data set aside."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from probvae.data.frames import frame_values, is_frame
from probvae.data.on_disk import RowsOnDisk, blocks, fits_in_memory, is_mapped
from probvae.errors import ArgumentError, DataError
from probvae.foundation.checks import check_matrix, non_finite_rows
from probvae.foundation.fit_options import FitOptions
from probvae.inference.pair import VAE, check_data, check_num_rows
from probvae.inference.training.dataset_rows import DatasetRows, unwrapped
from probvae.inference.training.minibatches import (
    Data,
    DiskMinibatches,
    Minibatches,
    Passes,
    Rows,
    TensorMinibatches,
)


class TrainingData(NamedTuple):
    """The training ``rows`` (N, D), their ``minibatches``, and the ``pair`` with their covariates; and the same for the
    validation data, where there are any.
    """

    pair: VAE
    rows: Rows
    minibatches: Minibatches
    validation_pair: VAE
    validation: Passes | None

    def check_unchanged(self) -> None:
        """Raise :class:`~probvae.errors.ChangedDataError` where data on the disk are not as they were at first."""
        self.rows.check_unchanged()
        if self.validation is not None:
            self.validation.check_unchanged()


def check_and_split(vae: VAE, conditioned: VAE, x: Data, options: FitOptions, device: torch.device) -> TrainingData:
    """Check the data ``x`` (N, D) and set the validation data aside; rows are handed over on ``device``.

    ``conditioned`` is the ``vae`` with the data's covariates, where it has any.
    """
    dtype = next(chain(vae.guide.parameters(), vae.model.parameters())).dtype  # an exact guide has none
    rows, validation = as_rows(x, dtype), options.validation
    check_matrix(rows.head(1), vae.model.data_dim)
    fresh = options.binarization == "fresh"
    # the data are checked before they are split and shuffled: a message names a row of the caller's data
    _check_rows(conditioned, rows, "x", fresh)
    held_out: Rows | None = None
    pair, validation_pair = conditioned, conditioned
    if isinstance(validation, int | float):
        index, held_out_index = _split(rows, validation, options.seed)
        pair, validation_pair = conditioned.at(index), conditioned.at(held_out_index)
        rows, held_out = rows.take(index), rows.take(held_out_index)
    elif validation is not None:
        held_out, validation_pair = _other_rows(vae, conditioned, validation, dtype, fresh), vae
    seen: Passes | None = _drawn(held_out, options.seed) if fresh and held_out is not None else held_out
    _check_varied(rows)
    rows = rows.to(device)
    minibatches = rows.minibatches(min(options.batch_size, len(rows)))
    return TrainingData(pair, rows, minibatches, validation_pair, None if seen is None else seen.to(device))


def as_rows(x: Data, dtype: torch.dtype, name: str = "x") -> Rows:
    """The data ``x`` as a fit reads them, their rows flattened to (N, D); ``dtype`` is that of the parameters.

    - a tensor (N, D), a DataFrame, and the first tensor of a ``TensorDataset``: in memory, as
      :func:`as_plain` makes them dense numbers;
    - an array: in memory, but one that is mapped (``np.load(file, mmap_mode="r")``) and would take more than
      2 GiB as ``dtype`` stays on the disk;
    - :class:`~probvae.data.RowsOnDisk`: on the disk, however small;
    - any other torch ``Dataset`` with a length: asked for its items at each use, because they may differ each time.

    Raises :class:`~probvae.errors.ArgumentError` for anything else.

    >>> len(as_rows(np.zeros((5, 3)), torch.float32))
    5
    """
    x = unwrapped(x) if isinstance(x, Dataset) else as_plain(x, name)
    if isinstance(x, IterableDataset):
        raise ArgumentError(
            f"{name}: an IterableDataset has no rows that could be shuffled, set aside or counted. Give a Dataset with "
            "a length, or save the data as .npy and pass np.load(file, mmap_mode='r')."
        )
    if isinstance(x, TensorDataset):
        x = as_plain(x.tensors[0], name).flatten(1).to(dtype)
    if isinstance(x, Dataset):
        return DatasetRows(x, dtype)
    if isinstance(x, RowsOnDisk):
        return DiskRows(x, dtype)
    if isinstance(x, np.ndarray):
        on_disk = RowsOnDisk(x)
        stays = is_mapped(x) and not fits_in_memory(on_disk.shape, dtype.itemsize)
        return DiskRows(on_disk, dtype) if stays else TensorRows(torch.from_numpy(on_disk[:]).to(dtype))
    check_matrix(x, name=name)
    return TensorRows(x.to(dtype))


def as_plain(x: Any, name: str = "x") -> Any:
    """``x`` as a dense tensor without a graph, or an array; anything else as it is.

    - a DataFrame: its numbers, NaN where one is missing;
    - a masked array: NaN where it is masked, because what stands under the mask is no datum;
    - a tensor of a graph, or of inference mode: its values, of which a fit may take gradients;
    - a sparse tensor or matrix: dense, where it fits into memory.

    Raises :class:`~probvae.errors.DataError` for a meta tensor, which has no values, and a nested one.

    >>> as_plain(np.ma.masked_equal([[1, 2], [3, 2]], 2))
    array([[ 1., nan],
           [ 3., nan]])
    """
    if isinstance(x, Tensor):
        return _plain_tensor(x, name)
    if isinstance(x, np.ma.MaskedArray):
        if x.dtype.kind not in "biuf":
            raise DataError(f"{name}: expected numbers, got dtype {x.dtype}. Convert them to float32.")
        values = np.array(x.data, dtype=np.float32 if x.dtype == np.float32 else np.float64)
        values[np.ma.getmaskarray(x)] = np.nan
        return values
    if is_frame(x):
        return frame_values(x, name)
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        _check_size(x.shape, name)
        return np.asarray(x.toarray())
    return x


def _plain_tensor(x: Tensor, name: str) -> Tensor:
    if x.is_meta:
        raise DataError(f"{name}: expected values, got a meta tensor, which has none. Load the data onto a device.")
    if x.is_nested:
        raise DataError(f"{name}: expected rows of one length, got a nested tensor. Use torch.nested.to_padded_tensor.")
    if x.is_quantized:
        x = x.dequantize()
    if x.layout != torch.strided:
        _check_size(tuple(x.shape), name)
        x = x.to_dense()
    x = x.detach()
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


def _check_size(shape: tuple[int, ...], name: str) -> None:
    if not fits_in_memory(shape, 4):
        raise DataError(
            f"{name}: these sparse data, {' x '.join(map(str, shape))}, do not fit into memory as a dense array. Take "
            "fewer rows, or save them as .npy."
        )


class TensorRows(Rows):
    """Data ``x`` (N, D) in memory; they are one block."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.dtype, self.device = x, x.dtype, x.device

    def __len__(self) -> int:
        return len(self.x)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """One block of all rows (N, D)."""
        yield slice(len(self.x)), self.x

    def head(self, num: int) -> Tensor:
        """The first ``num`` rows, (n, D)."""
        return self.x[:num]

    def take(self, index: Tensor) -> "TensorRows":
        """The rows that ``index`` (n,) names, in its order."""
        return TensorRows(self.x[index.to(self.device)])

    def to(self, device: torch.device) -> Self:
        return type(self)(self.x.to(device))

    def minibatches(self, batch_size: int) -> Minibatches:
        return TensorMinibatches(self.x, batch_size)


class DiskRows(Rows):
    """Data (N, D) that stay on the disk; their blocks have 8 MB."""

    def __init__(self, x: RowsOnDisk, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        self.x, self.dtype, self.device = x, dtype, torch.device(device)

    def __len__(self) -> int:
        return len(self.x)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of rows (n, D) in the order of the file."""
        for start, rows in blocks(self.x):
            yield slice(start, start + len(rows)), self._handed_over(rows)

    def head(self, num: int) -> Tensor:
        """The first ``num`` rows, (n, D)."""
        return self._handed_over(self.x[:num])

    def take(self, index: Tensor) -> "DiskRows":
        """The rows that ``index`` (n,) names, in the order of the file: there, neighbours are read together."""
        return DiskRows(self.x.take(index.sort().values.numpy()), self.dtype, self.device)

    def to(self, device: torch.device) -> Self:
        return type(self)(self.x, self.dtype, device)

    def minibatches(self, batch_size: int) -> Minibatches:
        return DiskMinibatches(self.x, batch_size, self.dtype, self.device)

    def check_unchanged(self) -> None:
        self.x.check_unchanged()

    def _handed_over(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.device, self.dtype)


class DrawnOnce(Passes):
    """x ~ Bernoulli(x) of data (N, D) whose values are probabilities: the same draw at every pass."""

    def __init__(self, rows: Passes, seed: int) -> None:
        self.rows, self.seed = rows, seed

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        generator = None
        for rows, x in self.rows.blocks():
            generator = generator or torch.Generator(x.device).manual_seed(self.seed)
            yield rows, torch.bernoulli(x, generator=generator)

    def to(self, device: torch.device) -> Self:
        return type(self)(self.rows.to(device), self.seed)

    def check_unchanged(self) -> None:
        self.rows.check_unchanged()


def _drawn(rows: Rows, seed: int) -> Passes:
    once = DrawnOnce(rows, seed)
    return TensorRows(next(once.blocks())[1]) if isinstance(rows, TensorRows) else once


def _other_rows(vae: VAE, conditioned: VAE, validation: Data, dtype: torch.dtype, fresh: bool) -> Rows:
    """Validation data (M, D) of the caller's own."""
    rows = as_rows(validation, dtype, "validation")
    check_matrix(rows.head(1), vae.model.data_dim, "validation")
    if conditioned is not vae:
        raise ArgumentError("validation: data of their own have no covariates here. Pass the share to set aside, 0.1.")
    _check_rows(vae, rows, "validation", fresh)
    return rows


def _check_rows(vae: VAE, source: Rows, name: str, fresh: bool) -> None:
    """Raise unless all data are in the likelihood's support, or grey where they are binarised later."""
    check_num_rows(vae, len(source))
    masked = vae.model.missing == "mask" and not fresh
    bad: list[Tensor] = []
    for rows, x in source.blocks():
        unusable = ~(x.isfinite() | x.isnan() if masked else x.isfinite()).all(1)
        if unusable.any():
            bad.append((rows.start or 0) + unusable.nonzero()[:, 0])
        elif not bad:
            _check_block(vae.at(rows), x, name, fresh)
    if bad:
        raise non_finite_rows(torch.cat(bad), len(source), name)


def _check_block(vae: VAE, x: Tensor, name: str, fresh: bool) -> None:
    try:
        if fresh:
            _check_grey(x)
        # once binarised, one row is as good as another
        check_data(vae.at(slice(1)), x[:1].round()) if fresh else check_data(vae, x)
    except DataError as error:
        # a likelihood does not know what its data are called here
        raise type(error)(f"{name}: {str(error).removeprefix('x: ')}") from error


def _check_grey(x: Tensor) -> None:
    if x.min() < 0 or x.max() > 1:
        raise DataError("x: binarization='fresh' needs values in [0, 1]. Scale the data (scaling='unit').")


def _split(rows: Rows, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """The index of the rows to train on, and of the rows to set aside."""
    num = max(1, round(share * len(rows)))
    if num >= len(rows):
        raise ArgumentError(
            f"validation: a share of {share:g} leaves none of the {len(rows)} rows to train on. Lower it."
        )
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    train, held_out = order[num:], order[:num]
    if isinstance(rows, TensorRows):
        return train, held_out
    return train.sort().values, held_out.sort().values  # neighbours in a file are read together


def _check_varied(rows: Rows) -> None:
    first = rows.head(1)
    if all((block == first).all() for _, block in rows.blocks()):
        raise DataError("x: all rows are the same, so there is nothing to learn. Check the file and the scaling.")
