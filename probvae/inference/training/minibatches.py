"""Minibatches: every row once an epoch, in a random order, with the row's index beside it.

:class:`Rows` are the data of a fit, read a block at a time in their order (to check and to evaluate), or by index.
:class:`Minibatches` are the order in which a fit sees them; labels and exposures stay with their rows by the index.

- **In memory**: all rows are shuffled once an epoch into a buffer that is kept; a minibatch is a slice of it.
- **On the disk** (:class:`~probvae.data.RowsOnDisk`): the file is cut into runs of neighbouring rows of 128 KiB. Each
  epoch shuffles the runs, takes 16 MiB of them at a time, and shuffles the rows among these. A thread reads the next
  16 MiB while the fit works on the last. Every row comes once an epoch, in a new order in each; the rows of one
  minibatch come from up to 128 places of the file. But two rows of one run stand in the same 16 MiB in every epoch, so
  a file that is sorted (by label, by time) is mixed as well as 128 random runs are.
- **A torch Dataset**: a random order of all rows; the items of a batch are fetched in the caller's thread, because a
  Dataset may draw random numbers, whose order has to be the same in each run.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from probvae.data.on_disk import RowsOnDisk, rows_in

T = TypeVar("T")
Data = Tensor | np.ndarray | RowsOnDisk | Dataset[Any]

# Neighbouring rows are read together by so many bytes, and shuffled together by so many
_RUN, _POOL = 128 * 2**10, 16 * 2**20


class Batch(NamedTuple):
    """The ``index`` (n,) of some rows in the data, and these ``rows`` (n, D)."""

    index: Tensor  # type: ignore[assignment]  # hides the method of a tuple, which has no use here
    rows: Tensor


class Minibatches(ABC):
    """Minibatches of N rows in an order that depends on torch's random state alone.

    :meth:`state` can be taken between any two batches and saved (a number and a tensor); after :meth:`restore` of it,
    on new minibatches of the same data, the next :meth:`epoch` goes on with the batch that would have come.

    >>> minibatches = TensorMinibatches(torch.arange(6.0).reshape(3, 2), batch_size=2)
    >>> [batch.rows.shape for batch in minibatches.epoch()]
    [torch.Size([2, 2]), torch.Size([1, 2])]
    """

    def __init__(self, num_rows: int, batch_size: int) -> None:
        self.num_rows, self.batch_size = num_rows, batch_size
        self.position = 0  # the number of batches that the epoch has handed out
        self._drawn: Tensor | None = None
        self._running: Generator[Batch, None, None] | None = None

    def epoch(self) -> Iterator[Batch]:
        """The batches of one epoch: rows (n, D), index (n,). An epoch that was broken off, or restored, goes on.

        The rows of a batch stay as they are until the next epoch begins.
        """
        self.close()
        if self._drawn is None:
            self._drawn = self._draw()
        self._running = self._batches(self._drawn, self.position)
        for batch in self._running:
            self.position += 1  # a batch that was handed out does not come again
            yield batch
        self.position, self._drawn = 0, None

    def state(self) -> dict[str, Any]:
        """The position in the epoch, and the random draw that the epoch's order is made of."""
        return {"position": self.position, **({} if self._drawn is None else {"drawn": self._drawn.clone()})}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken. Raises ``ValueError`` for a draw that no order of these rows is made of."""
        self.close()
        drawn = state.get("drawn")
        if drawn is not None:
            self._check(drawn)
        self.position, self._drawn = int(state["position"]), drawn

    def close(self) -> None:
        """End the thread that reads ahead, where there is one."""
        if self._running is not None:
            self._running.close()

    def _draw(self) -> Tensor:
        """The random draw of an epoch, by torch's own generator: the order (N,) of the rows."""
        return torch.randperm(self.num_rows)

    def _check(self, drawn: Tensor) -> None:
        if drawn.dtype != torch.int64 or not torch.equal(drawn.sort().values, torch.arange(self.num_rows)):
            raise ValueError(f"expected an order of {self.num_rows} rows, got {tuple(drawn.shape)} {drawn.dtype}")

    @abstractmethod
    def _batches(self, drawn: Tensor, start: int) -> Generator[Batch, None, None]:
        """The batches from number ``start`` on."""


class Passes(ABC):
    """Data (N, D) that can be gone through."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """All rows in their order, block by block: the slice of the data, and its rows (n, D)."""

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """The same data, handed over on ``device``."""

    def check_unchanged(self) -> None:  # noqa: B027  # data in memory stay as they are
        """Raise :class:`~probvae.errors.ChangedDataError` where the data are not those of the first reading."""


class Rows(Passes):
    """Data (N, D) of one dtype whose rows can be had by index."""

    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def head(self, num: int) -> Tensor:
        """The first ``num`` rows, (n, D)."""

    @abstractmethod
    def take(self, index: Tensor) -> "Rows":
        """The rows that ``index`` (n,) names."""

    @abstractmethod
    def minibatches(self, batch_size: int) -> Minibatches:
        """Minibatches of the rows."""


class TensorMinibatches(Minibatches):
    """Slices of a copy of ``x`` (N, D) that is shuffled once an epoch."""

    def __init__(self, x: Tensor, batch_size: int) -> None:
        super().__init__(len(x), batch_size)
        self.x, self.buffer = x, torch.empty_like(x, memory_format=torch.contiguous_format)

    def _draw(self) -> Tensor:
        return torch.randperm(self.num_rows, device=self.x.device)

    def _batches(self, drawn: Tensor, start: int) -> Generator[Batch, None, None]:
        drawn = drawn.to(self.x.device)
        torch.index_select(self.x, 0, drawn, out=self.buffer)
        batches = zip(drawn.split(self.batch_size), self.buffer.split(self.batch_size), strict=True)
        for number, (index, rows) in enumerate(batches):
            if number >= start:
                yield Batch(index, rows)


class DiskMinibatches(Minibatches):
    """Runs of rows in random order, shuffled 16 MiB at a time; a thread reads ahead."""

    def __init__(
        self,
        x: RowsOnDisk,
        batch_size: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        run: int | None = None,
        runs_a_pool: int | None = None,
    ) -> None:
        super().__init__(len(x), batch_size)
        self.x, self.dtype, self.device = x, dtype, device
        self.run = run or rows_in(_RUN, x)
        self.runs_a_pool = runs_a_pool or max(1, rows_in(_POOL, x) // self.run)

    def _draw(self) -> Tensor:
        return torch.randint(2**62, ())

    def _check(self, drawn: Tensor) -> None:
        if drawn.dtype != torch.int64 or drawn.shape != ():
            raise ValueError(f"expected the seed of an order, got {tuple(drawn.shape)} {drawn.dtype}")

    def _batches(self, drawn: Tensor, start: int) -> Generator[Batch, None, None]:
        pools = _made_ahead(self._pools(int(drawn), start * self.batch_size))
        try:
            for index, rows in pools:
                moved = index.to(self.device), rows.to(self.device, self.dtype)
                yield from map(Batch, *(values.split(self.batch_size) for values in moved))
        finally:
            pools.close()

    def _pools(self, seed: int, skip: int) -> Iterator[Batch]:
        """The rows of the epoch but the first ``skip``, a pool at a time."""
        for index in self._orders(seed):
            rest, skip = index[skip:], max(0, skip - len(index))
            if len(rest):
                yield Batch(rest, torch.from_numpy(self.x[rest.numpy()]))

    def _orders(self, seed: int) -> Iterator[Tensor]:
        """The index of each pool; rows that do not fill a batch are shuffled into the next pool."""
        generator = torch.Generator().manual_seed(seed)
        runs = torch.randperm(math.ceil(self.num_rows / self.run), generator=generator)
        kept = runs.new_empty(0)
        for group in runs.split(self.runs_a_pool):
            index = (group.unsqueeze(1) * self.run + torch.arange(self.run)).flatten()
            pool = torch.cat([kept, index[index < self.num_rows]])
            pool = pool[torch.randperm(len(pool), generator=generator)]
            ready = len(pool) - len(pool) % self.batch_size
            kept = pool[ready:]
            yield pool[:ready]
        yield kept


class FetchedMinibatches(Minibatches):
    """Rows in random order, each batch fetched when it is needed: ``fetch`` gives the rows (n, D) of an index (n,)."""

    def __init__(self, fetch: Callable[[Tensor], Tensor], num_rows: int, batch_size: int) -> None:
        super().__init__(num_rows, batch_size)
        self.fetch = fetch

    def _batches(self, drawn: Tensor, start: int) -> Generator[Batch, None, None]:
        for index in drawn.split(self.batch_size)[start:]:
            rows = self.fetch(index)
            yield Batch(index.to(rows.device), rows)


def _made_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The items, each made in a thread while the item before is in use; errors of the thread are raised here."""
    with ThreadPoolExecutor(1, "probvae-minibatches") as worker:
        coming = worker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = worker.submit(next, items, None)
            yield item
