"""Checks of tensors at public boundaries."""

from typing import TYPE_CHECKING

from probvae.errors import ArgumentError, DataError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor


def check_matrix(x: "Tensor", data_dim: int | None = None, name: str = "x") -> None:
    """Raise unless ``x`` is a real (N, D) tensor with N, D >= 1 and, unless ``data_dim`` is None, D = ``data_dim``."""
    # The command line checks numbers with this file, before torch is there.
    import torch
    from torch import Tensor

    if not isinstance(x, Tensor):
        raise ArgumentError(
            f"{name}: expected a torch.Tensor, got {type(x).__name__}. Convert it with {_conversion(x, name)}."
        )
    if x.is_meta or x.layout != torch.strided:
        kind, fix = ("meta", "Load its values onto a device") if x.is_meta else ("sparse", f"Use {name}.to_dense()")
        raise DataError(f"{name}: expected a dense tensor with values, got a {kind} tensor. {fix}.")
    if not x.is_floating_point():
        raise DataError(f"{name}: expected a floating-point dtype, got {x.dtype}. Convert it with {name}.float().")
    if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] == 0:
        raise ShapeError(
            f"{name}: expected shape (N, D) with N, D >= 1, got {tuple(x.shape)}. "
            f"One row is one datum: use {name}.reshape(N, -1)."
        )
    if data_dim is not None and x.shape[1] != data_dim:
        raise ShapeError(
            f"{name}: expected {data_dim} columns, got {x.shape[1]}. "
            f"Use the data the model was built for, or build the model with data_dim={x.shape[1]}."
        )


def _conversion(x: object, name: str) -> str:
    """The call that makes a tensor of ``x``."""
    import numpy as np

    if isinstance(x, np.ma.MaskedArray):
        return f"torch.as_tensor({name}.astype(float).filled(numpy.nan)).float()"
    if isinstance(x, np.ndarray):
        return f"torch.as_tensor({f'{name}.copy()' if min(x.strides, default=0) < 0 else name})"
    if type(x).__module__.split(".")[0] == "pandas":
        return f"torch.as_tensor({name}.to_numpy('float32'))"  # without a dtype, columns that know NA become objects
    way = next((way for way in ("to_numpy", "toarray", "to_pandas") if hasattr(x, way)), None)
    return f"torch.as_tensor({name})" if way is None else f"torch.as_tensor({name}.{way}()).float()"


def check_no_mask(values: object, name: str) -> None:
    """Raise for a masked array with masked entries, whose mask would be lost on the way to a tensor."""
    import numpy as np

    masked = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    if masked is not None and masked.any():
        rows = np.flatnonzero(masked.reshape(len(masked), -1).any(1))
        raise DataError(
            f"{name}: {len(rows)} of {len(masked)} rows have a masked entry (first: row {rows[0]}), and the model "
            "needs one for each. Drop these rows, or fill them."
        )


def check_finite(x: "Tensor", name: str = "x") -> None:
    """Raise unless every entry of ``x`` (N, D) is finite; the message names the first row that is not."""
    finite = x.isfinite().all(dim=1)
    if finite.all():
        return
    raise non_finite_rows((~finite).nonzero()[:, 0], len(x), name)


def non_finite_rows(bad: "Tensor", num_data: int, name: str = "x") -> DataError:
    """The error for rows that are not finite; ``bad`` (B,) are their row numbers, of ``num_data`` rows in all."""
    return DataError(
        f"{name}: {len(bad)} of {num_data} rows contain NaN or infinity (first: row {int(bad[0])}). "
        "Drop or repair these rows; NaN may stay where the model has missing='mask'."
    )


def check_event(value: "Tensor", size: int, name: str, fix: str) -> None:
    """Raise unless ``value`` has shape (..., size); the message ends with ``fix``."""
    if value.ndim == 0 or value.shape[-1] != size:
        raise ShapeError(f"{name}: expected trailing shape ({size},), got {tuple(value.shape)}. {fix}")


def check_count(value: int, name: str, least: int = 1, most: int | None = None) -> None:
    """Raise unless ``value`` is an integer from ``least`` to ``most`` (None: without end)."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(f"{name}: expected an integer >= {least}, got {value!r}.")
    if most is not None and value > most:
        raise ArgumentError(f"{name}: expected an integer <= {most}, got {value}.")


def check_positive(value: float, name: str) -> None:
    """Raise unless ``value`` is a finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ArgumentError(f"{name}: expected a finite number > 0, got {value!r}.")
