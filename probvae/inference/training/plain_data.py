"""Data of every kind that users have, as the few kinds that a fit reads."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from probvae.data.frames import frame_values, is_frame
from probvae.data.on_disk import fits_in_memory
from probvae.errors import DataError


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
