"""The rows of a torch ``Dataset``."""

from collections.abc import Iterator, Sequence, Sized
from typing import Any, Self, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset, default_collate

from probvae.errors import ArgumentError, DataError
from probvae.inference.training.minibatches import Data, FetchedMinibatches, Minibatches, Rows

# So many items are looked at together where they are read in their order
_ITEMS = 256


class DatasetRows(Rows):
    """A torch ``Dataset``: its items are x, or pairs (x, y), and are asked for anew at every use.

    ``index`` (N,) names the items that belong to the data, all of them by default.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        index: Tensor | None = None,
    ) -> None:
        self.dataset, self.dtype, self.device = dataset, dtype, torch.device(device)
        self.index = torch.arange(_length(dataset)) if index is None else index

    def __len__(self) -> int:
        return len(self.index)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of rows (n, D) in the order of the items."""
        for index in torch.arange(len(self)).split(_ITEMS):
            yield slice(int(index[0]), int(index[-1]) + 1), self.read(index)

    def head(self, num: int) -> Tensor:
        """The first ``num`` rows, (n, D)."""
        return self.read(torch.arange(min(num, len(self))))

    def take(self, index: Tensor) -> "DatasetRows":
        """The rows that ``index`` (n,) names, in its order."""
        return DatasetRows(self.dataset, self.dtype, self.device, self.index[index])

    def to(self, device: torch.device) -> Self:
        return type(self)(self.dataset, self.dtype, device, self.index)

    def minibatches(self, batch_size: int) -> Minibatches:
        return FetchedMinibatches(self.read, len(self), batch_size)

    def read(self, index: Tensor) -> Tensor:
        """The rows (n, D) with this ``index`` (n,), flattened."""
        x = self._items(index)[0]
        return x.reshape(len(x), -1).to(self.device, self.dtype)

    def labels(self) -> Tensor:
        """The y (N,) or (N, C) of all items. Raises :class:`~probvae.errors.DataError` where they have none."""
        if len(self._items(torch.zeros(1, dtype=torch.int64))) < 2:
            raise _no_labels()
        return torch.cat([self._items(index)[1] for index in torch.arange(len(self)).split(_ITEMS)])

    def _items(self, index: Tensor) -> Sequence[Tensor]:
        numbers = self.index[index].tolist()
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(numbers) if fetch is not None else [self.dataset[number] for number in numbers]
        try:
            joined = default_collate(items)
        except (TypeError, RuntimeError) as error:
            raise DataError(
                f"x: the items of the Dataset cannot be joined ({error}). Give tensors of one shape."
            ) from error
        values = [joined] if isinstance(joined, Tensor) else joined
        if not isinstance(values, Sequence) or not all(isinstance(value, Tensor) for value in values[:2]):
            raise DataError(f"x: expected items x or (x, y) of tensors or numbers, got {type(items[0]).__name__}.")
        return values


def labels_of(x: Data) -> Tensor | None:
    """The y (N,) or (N, C) of a ``Dataset`` of pairs (x, y); None for data that are no ``Dataset``.

    >>> labels_of(TensorDataset(torch.zeros(2, 3), torch.tensor([4, 7])))
    tensor([4, 7])
    """
    x = unwrapped(x)
    if isinstance(x, TensorDataset):
        if len(x.tensors) < 2:
            raise _no_labels()
        return x.tensors[1]
    if not isinstance(x, Dataset) or isinstance(x, IterableDataset):
        return None
    return DatasetRows(x, torch.get_default_dtype()).labels()


def unwrapped(x: Data) -> Data:
    """``x``; a part of a ``TensorDataset`` as a ``TensorDataset`` of its own, which needs no loop over its items."""
    if isinstance(x, Subset) and isinstance(inner := unwrapped(x.dataset), TensorDataset):
        return TensorDataset(*(values[torch.as_tensor(x.indices)] for values in inner.tensors))
    return x


def _no_labels() -> DataError:
    return DataError("y: the model is conditional, and the Dataset's items are x alone. Give items (x, y), or pass y.")


def _length(dataset: Dataset[Any]) -> int:
    try:
        return len(cast(Sized, dataset))
    except TypeError as error:
        raise ArgumentError("x: expected a Dataset with a length, got one without. Give it __len__.") from error
