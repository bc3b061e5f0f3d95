"""Where the minibatches of a fit come from: memory, a file that stays on the disk, or a torch ``Dataset``.

A *source* is the data: so many rows, read a block at a time in their order (to check and to evaluate), or by number. A
*feeder* is the order in which a fit sees them: every row once an epoch, with the row's number beside it, so that labels
and exposures stay with their rows.

- **In memory**: all rows are shuffled once an epoch into a buffer that is kept; a minibatch is a slice of it.
- **On the disk** (:class:`~probvae.data.RowsOnDisk`): the file is cut into runs of neighbouring rows of 128 KiB. Each
  epoch shuffles the runs, takes 16 MiB of them at a time, and shuffles the rows among these. A thread reads the next
  16 MiB while the fit works on the last. *What this gives*: every row once an epoch, and a new order in each; rows of
  one minibatch come from up to 128 places of the file. *What it does not give*: two rows of one run stand in the same
  16 MiB in every epoch, so a file that is sorted (by label, by time) is mixed as well as 128 random runs are.
- **A torch Dataset**: a random order of all rows; the items of a batch are fetched in the caller's thread, because a
  Dataset may draw random numbers, whose order has to be the same in each run.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset, default_collate

from probvae.data.on_disk import RowsOnDisk, blocks, fits_in_memory, is_mapped, rows_in
from probvae.errors import ArgumentError, DataError
from probvae.foundation.checks import check_matrix

T = TypeVar("T")

# Neighbouring rows that are read together, and what is shuffled together: bytes
_RUN, _POOL = 128 * 2**10, 16 * 2**20
# Items of a torch Dataset that are looked at together, where the order is theirs
_ITEMS = 256


class Batch(NamedTuple):
    """The numbers of some rows (n,), and these rows (n, D)."""

    places: Tensor
    rows: Tensor


class Feeder(ABC):
    """Minibatches: every row once an epoch, in an order that depends on torch's random state alone.

    ``state()`` can be taken between any two batches and saved (a number and a tensor); after ``restore`` of it, on a
    new feeder for the same data, the next :meth:`epoch` goes on with the batch that would have come.

    >>> feeder = TensorSource(torch.arange(6.0).reshape(3, 2)).feeder(batch_size=2)
    >>> [batch.rows.shape for batch in feeder.epoch()]
    [torch.Size([2, 2]), torch.Size([1, 2])]
    """

    def __init__(self, num_data: int, batch_size: int) -> None:
        self.num_data, self.batch_size = num_data, batch_size
        # how many batches of the epoch have been handed out
        self.position = 0
        self._drawn: Tensor | None = None
        self._running: Generator[Batch, None, None] | None = None

    def epoch(self) -> Iterator[Batch]:
        """The batches of one epoch; the rest of one that was broken off, or restored.

        The rows of a batch stay as they are until the next epoch begins.
        """
        self.close()
        if self._drawn is None:
            self._drawn = self._draw()
        self._running = self._batches(self._drawn, self.position)
        for batch in self._running:
            self.position += 1  # what was handed out does not come again
            yield batch
        self.position, self._drawn = 0, None

    def state(self) -> dict[str, Any]:
        """Where in the epoch the feeder is, and what its order is made of."""
        return {"position": self.position, **({} if self._drawn is None else {"drawn": self._drawn.clone()})}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self.close()
        self.position, self._drawn = int(state["position"]), state.get("drawn")

    def close(self) -> None:
        """End the thread that reads ahead, where there is one."""
        if self._running is not None:
            self._running.close()

    def _draw(self) -> Tensor:
        """What an epoch's order is made of, by torch's own generator: the order."""
        return torch.randperm(self.num_data)

    @abstractmethod
    def _batches(self, drawn: Tensor, start: int) -> Generator[Batch, None, None]:
        """The batches from number ``start`` on."""


class Blocks(ABC):
    """Data (N, D) that can be gone through."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """All rows in their order: where they stand, and they."""

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """The same data, handed over on ``device``."""


class Source(Blocks):
    """Data of one dtype whose rows can be had by number."""

    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def head(self, num: int) -> Tensor:
        """The first rows."""

    @abstractmethod
    def take(self, rows: Tensor) -> "Source":
        """Some of the rows."""

    @abstractmethod
    def feeder(self, batch_size: int) -> Feeder:
        """Minibatches of them."""


class TensorSource(Source):
    """Data in memory; they are one block."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.dtype, self.device = x, x.dtype, x.device

    def __len__(self) -> int:
        return len(self.x)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        yield slice(len(self.x)), self.x

    def head(self, num: int) -> Tensor:
        return self.x[:num]

    def take(self, rows: Tensor) -> "TensorSource":
        return TensorSource(self.x[rows.to(self.device)])

    def to(self, device: torch.device) -> Self:
        return type(self)(self.x.to(device))

    def feeder(self, batch_size: int) -> Feeder:
        return _BufferFeeder(self.x, batch_size)


class _BufferFeeder(Feeder):
    """Slices of a copy that is shuffled once an epoch."""

    def __init__(self, x: Tensor, batch_size: int) -> None:
        super().__init__(len(x), batch_size)
        self.x, self.buffer = x, torch.empty_like(x, memory_format=torch.contiguous_format)

    def _draw(self) -> Tensor:
        return torch.randperm(self.num_data, device=self.x.device)

    def _batches(self, drawn: Tensor, start: int) -> Generator[Batch, None, None]:
        drawn = drawn.to(self.x.device)
        torch.index_select(self.x, 0, drawn, out=self.buffer)
        batches = zip(drawn.split(self.batch_size), self.buffer.split(self.batch_size), strict=True)
        for number, (index, rows) in enumerate(batches):
            if number >= start:
                yield Batch(index, rows)


class DiskSource(Source):
    """Data that stay on the disk; their blocks have 8 MB."""

    def __init__(self, x: RowsOnDisk, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        self.x, self.dtype, self.device = x, dtype, torch.device(device)

    def __len__(self) -> int:
        return len(self.x)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for start, rows in blocks(self.x):
            yield slice(start, start + len(rows)), self._handed_over(rows)

    def head(self, num: int) -> Tensor:
        return self._handed_over(self.x[:num])

    def take(self, rows: Tensor) -> "DiskSource":
        """Some of the rows, in the order of the file: there, neighbours are read together."""
        return DiskSource(self.x.take(rows.sort().values.numpy()), self.dtype, self.device)

    def to(self, device: torch.device) -> Self:
        return type(self)(self.x, self.dtype, device)

    def feeder(self, batch_size: int) -> Feeder:
        return DiskFeeder(self, batch_size)

    def _handed_over(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.device, self.dtype)


class DiskFeeder(Feeder):
    """Runs of rows in random order, shuffled 16 MiB at a time; a thread reads ahead."""

    def __init__(
        self, source: DiskSource, batch_size: int, run: int | None = None, runs_a_pool: int | None = None
    ) -> None:
        super().__init__(len(source), batch_size)
        self.source = source
        self.run = run or rows_in(_RUN, source.x)
        self.runs_a_pool = runs_a_pool or max(1, rows_in(_POOL, source.x) // self.run)

    def _draw(self) -> Tensor:
        return torch.randint(2**62, ())

    def _batches(self, drawn: Tensor, start: int) -> Generator[Batch, None, None]:
        pools = _made_ahead(self._pools(int(drawn), start * self.batch_size))
        try:
            for index, rows in pools:
                moved = index.to(self.source.device), rows.to(self.source.device, self.source.dtype)
                yield from map(Batch, *(values.split(self.batch_size) for values in moved))
        finally:
            pools.close()

    def _pools(self, seed: int, skip: int) -> Iterator[Batch]:
        """The rows of the epoch but the first ``skip``, a pool at a time."""
        for index in self._orders(seed):
            rest, skip = index[skip:], max(0, skip - len(index))
            if len(rest):
                yield Batch(rest, torch.from_numpy(self.source.x[rest.numpy()]))

    def _orders(self, seed: int) -> Iterator[Tensor]:
        """The numbers of the rows; what does not fill a batch is shuffled into the next pool."""
        generator = torch.Generator().manual_seed(seed)
        runs = torch.randperm(math.ceil(self.num_data / self.run), generator=generator)
        kept = runs.new_empty(0)
        for group in runs.split(self.runs_a_pool):
            places = (group.unsqueeze(1) * self.run + torch.arange(self.run)).flatten()
            pool = torch.cat([kept, places[places < self.num_data]])
            pool = pool[torch.randperm(len(pool), generator=generator)]
            ready = len(pool) - len(pool) % self.batch_size
            kept = pool[ready:]
            yield pool[:ready]
        yield kept


class DatasetSource(Source):
    """A torch ``Dataset``: its items are x, or pairs (x, y), and are asked for anew at every use."""

    def __init__(
        self,
        dataset: Dataset[Any],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        rows: Tensor | None = None,
    ) -> None:
        self.dataset, self.dtype, self.device = dataset, dtype, torch.device(device)
        self.rows = torch.arange(_length(dataset)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for index in torch.arange(len(self)).split(_ITEMS):
            yield slice(int(index[0]), int(index[-1]) + 1), self.read(index)

    def head(self, num: int) -> Tensor:
        return self.read(torch.arange(min(num, len(self))))

    def take(self, rows: Tensor) -> "DatasetSource":
        return DatasetSource(self.dataset, self.dtype, self.device, self.rows[rows])

    def to(self, device: torch.device) -> Self:
        return type(self)(self.dataset, self.dtype, device, self.rows)

    def feeder(self, batch_size: int) -> Feeder:
        return _DatasetFeeder(self, batch_size)

    def read(self, index: Tensor) -> Tensor:
        """The rows with these numbers, flattened."""
        x = self._items(index)[0]
        return x.reshape(len(x), -1).to(self.device, self.dtype)

    def labels(self) -> Tensor:
        """The y of all items. Raises :class:`~probvae.errors.DataError` where they have none."""
        if len(self._items(torch.zeros(1, dtype=torch.int64))) < 2:
            raise _no_labels()
        return torch.cat([self._items(index)[1] for index in torch.arange(len(self)).split(_ITEMS)])

    def _items(self, index: Tensor) -> Sequence[Tensor]:
        numbers = self.rows[index].tolist()
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


class _DatasetFeeder(Feeder):
    """Items in random order, each batch when it is needed."""

    def __init__(self, source: DatasetSource, batch_size: int) -> None:
        super().__init__(len(source), batch_size)
        self.source = source

    def _batches(self, drawn: Tensor, start: int) -> Generator[Batch, None, None]:
        for index in drawn.split(self.batch_size)[start:]:
            yield Batch(index.to(self.source.device), self.source.read(index))


class DrawnOnce(Blocks):
    """x ~ Bernoulli(x) of data whose values are probabilities: the same draw at every pass."""

    def __init__(self, source: Blocks, seed: int) -> None:
        self.source, self.seed = source, seed

    def __len__(self) -> int:
        return len(self.source)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        generator = None
        for rows, x in self.source.blocks():
            generator = generator or torch.Generator(x.device).manual_seed(self.seed)
            yield rows, torch.bernoulli(x, generator=generator)

    def to(self, device: torch.device) -> Self:
        return type(self)(self.source.to(device), self.seed)


Data = Tensor | np.ndarray | RowsOnDisk | Dataset[Any]


def as_source(x: Data, dtype: torch.dtype, name: str = "x") -> Source:
    """The data as what a fit reads, their rows flattened; ``dtype`` is that of the parameters.

    - a tensor (N, D) and the first tensor of a ``TensorDataset``: in memory;
    - an array: in memory, but one that is mapped (``np.load(file, mmap_mode="r")``) and would take more than
      2 GiB as ``dtype`` stays on the disk;
    - :class:`~probvae.data.RowsOnDisk`: on the disk, however small;
    - any other torch ``Dataset`` with a length: asked for its items at each use, because they may differ each time.

    Raises :class:`~probvae.errors.ArgumentError` for anything else.

    >>> len(as_source(np.zeros((5, 3)), torch.float32))
    5
    """
    x = _unwrapped(x)
    if isinstance(x, IterableDataset):
        raise ArgumentError(
            f"{name}: an IterableDataset has no rows that could be shuffled, set aside or counted. Give a Dataset with "
            "a length, or save the data as .npy and pass np.load(file, mmap_mode='r')."
        )
    if isinstance(x, TensorDataset):
        x = x.tensors[0].flatten(1).to(dtype)
    if isinstance(x, Dataset):
        return DatasetSource(x, dtype)
    if isinstance(x, RowsOnDisk):
        return DiskSource(x, dtype)
    if isinstance(x, np.ndarray):
        rows = RowsOnDisk(x)
        stays = is_mapped(x) and not fits_in_memory(rows.shape, dtype.itemsize)
        return DiskSource(rows, dtype) if stays else TensorSource(torch.from_numpy(rows[:]).to(dtype))
    check_matrix(x, name=name)
    return TensorSource(x.to(dtype))


def labels_of(x: Data) -> Tensor | None:
    """The y of a ``Dataset`` of pairs (x, y), all of them; None for data that are no ``Dataset``.

    >>> labels_of(TensorDataset(torch.zeros(2, 3), torch.tensor([4, 7])))
    tensor([4, 7])
    """
    x = _unwrapped(x)
    if isinstance(x, TensorDataset):
        if len(x.tensors) < 2:
            raise _no_labels()
        return x.tensors[1]
    if not isinstance(x, Dataset) or isinstance(x, IterableDataset):
        return None
    return DatasetSource(x, torch.get_default_dtype()).labels()


def _unwrapped(x: Data) -> Data:
    """Part of a ``TensorDataset`` is one: no loop over its items."""
    if isinstance(x, Subset) and isinstance(inner := _unwrapped(x.dataset), TensorDataset):
        return TensorDataset(*(values[torch.as_tensor(x.indices)] for values in inner.tensors))
    return x


def _no_labels() -> DataError:
    return DataError("y: the model is conditional, and the Dataset's items are x alone. Give items (x, y), or pass y.")


def _length(dataset: Dataset[Any]) -> int:
    try:
        return len(cast(Sized, dataset))
    except TypeError as error:
        raise ArgumentError("x: expected a Dataset with a length, got one without. Give it __len__.") from error


def _made_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The items, each made in a thread while the one before it is in use; errors there are raised here."""
    with ThreadPoolExecutor(1, "probvae-feeding") as worker:
        coming = worker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = worker.submit(next, items, None)
            yield item
