"""Data that stay on the disk: their rows are read, selected and scaled a few at a time."""

import mmap
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Self

import numpy as np

from probvae.data.file_watch import FileWatch
from probvae.errors import ArgumentError, ChangedDataError, DataError, ShapeError

# Data that take no more than this, as the floats that they become, are read into memory.
IN_MEMORY_LIMIT = 2 * 2**30  # bytes
_BLOCK = 8 * 2**20  # bytes
# Rows here and there in a file that are read before its pages are handed back: Linux maps up to 2 MB around each
_SCATTERED = 32


class RowsOnDisk:
    """The rows (N, D) of a memory-mapped array, which are read only where they are asked for.

    ``x[3:7]`` and ``x[[5, 2]]`` are arrays in memory, of float32 (float64 where the file's numbers need it), with all
    ``steps`` done to them; ``take`` and ``then`` give other rows on disk and read nothing. The pages of a file that is
    mapped for reading are handed back to the system after each read, so a pass over all rows takes the memory of one
    block; beside it are eight bytes for each row that ``take`` chose.

    Parameters
    ----------
    values
        (N, ...) numbers: ``np.load(file, mmap_mode="r")``. What follows the first axis is one row.
    rows
        The row numbers, in their order; by default all rows.
    steps
        Functions of a block (n, D) that give another block: scaling, a threshold. Integers of more than 16 bits reach
        them in float64, and what they give is cast to ``dtype``.
    dtype
        The dtype of what is handed over; by default that of the class above.
    watch
        The file as it was when its reading began; by default as it is now.

    Raises :class:`~probvae.errors.DataError` for values that are no numbers, and where all rows would be read unawares,
    and :class:`~probvae.errors.ChangedDataError` where the file has another size than at first.

    >>> x = RowsOnDisk(np.arange(12).reshape(4, 3)).then(np.negative)
    >>> x.shape, x.take(slice(2, 4))[[1]]
    ((4, 3), array([[ -9., -10., -11.]], dtype=float32))
    """

    ndim = 2

    def __init__(
        self,
        values: np.ndarray,
        rows: np.ndarray | None = None,
        steps: tuple[Callable[[np.ndarray], np.ndarray], ...] = (),
        dtype: np.dtype | None = None,
        watch: FileWatch | None = None,
    ) -> None:
        if values.dtype.kind not in "biuf":
            raise DataError(f"x: expected numbers, got dtype {values.dtype}. Save the array as float32.")
        if values.ndim < 2 or values.size == 0:
            raise ShapeError(f"x: expected shape (N, D) with N, D >= 1, got {values.shape}. One row is one datum.")
        self.values = values.reshape(len(values), -1)
        self.rows, self.steps = rows, steps
        self.dtype = float_dtype(values.dtype) if dtype is None else dtype
        self._mapping = _mapping(values)
        self.watch = watch or _watch(values)

    def check_unchanged(self) -> None:
        """Raise :class:`~probvae.errors.ChangedDataError` where the file is not as it was when its reading began."""
        if self.watch is not None:
            self.watch.check()

    def __len__(self) -> int:
        return len(self.values if self.rows is None else self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self), int(self.values.shape[1])

    @property
    def nbytes(self) -> int:
        """The bytes that all rows would take in memory."""
        return len(self) * self.shape[1] * self.dtype.itemsize

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The rows of a slice, or of a list of row numbers, in memory."""
        if isinstance(rows, tuple | int | np.integer):
            raise ArgumentError(f"x: rows on the disk are read by a slice or a list of row numbers, got {rows!r}.")
        x = self._read(rows if self.rows is None else self.rows[rows])
        for step in self.steps:
            x = step(x)
        return x.astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if not fits_in_memory(self.shape, self.dtype.itemsize):
            raise DataError(
                f"x: these data stay on the disk ({self.nbytes / 2**30:.1f} GiB), and all of them were asked for at "
                "once. Take fewer rows (num_data, x[:10000])."
            )
        return self[:].astype(dtype or self.dtype, copy=False)

    def take(self, rows: np.ndarray | slice) -> Self:
        """Some of the rows, still on the disk."""
        if self.rows is not None:
            return type(self)(self.values, self.rows[rows], self.steps, self.dtype, self.watch)
        if isinstance(rows, slice):
            return type(self)(self.values[rows], None, self.steps, self.dtype, self.watch)
        return type(self)(self.values, np.arange(len(self.values))[rows], self.steps, self.dtype, self.watch)

    def then(self, step: Callable[[np.ndarray], np.ndarray]) -> Self:
        """The same rows with one more step done to each block that is read."""
        return type(self)(self.values, self.rows, (*self.steps, step), self.dtype, self.watch)

    def precise(self) -> Self:
        """The same rows, handed over in the precision of the file (:func:`precise_dtype`)."""
        return type(self)(self.values, self.rows, self.steps, precise_dtype(self.values.dtype), self.watch)

    def _read(self, rows: Any) -> np.ndarray:
        """Rows of the file as floats; row numbers in any order are read in the order of the file."""
        dtype = precise_dtype(self.values.dtype) if self.steps else self.dtype
        if isinstance(rows, slice):
            self._check_size()
            x = np.array(self.values[rows], dtype=dtype)
            self._release()
            return x
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        order = np.argsort(rows, kind="stable")
        x = np.empty((len(rows), self.shape[1]), dtype=dtype)
        for start in range(0, len(rows), _SCATTERED):
            self._check_size()
            part = order[start : start + _SCATTERED]
            x[part] = self.values[rows[part]]
            self._release()
        return x

    def _check_size(self) -> None:
        # To read a page that the file has no more ends the process, without a word
        if self.watch is not None:
            self.watch.check_size()

    def _release(self) -> None:
        # The system's cache holds the pages that were read, so that this process need not
        if self._mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)


def float_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype for numbers of ``dtype``: float64 for floats that need it, else float32."""
    return np.dtype(np.float64 if dtype.kind == "f" and dtype.itemsize > 4 else np.float32)


def precise_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which numbers of ``dtype`` are scaled: float32 where it holds them all, else float64.

    >>> precise_dtype(np.dtype("int16")), precise_dtype(np.dtype("int32"))
    (dtype('float32'), dtype('float64'))
    """
    wide = dtype.itemsize > (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float64 if wide else np.float32)


def fits_in_memory(shape: tuple[int, ...], itemsize: int, limit: int | None = None) -> bool:
    """True if an array of ``shape`` is read into memory; sizes alone decide, so that every machine does the same."""
    return int(np.prod(shape, dtype=object)) * itemsize <= (IN_MEMORY_LIMIT if limit is None else limit)


def is_mapped(x: np.ndarray) -> bool:
    """True if ``x`` is a memory-mapped file, or a part of one."""
    return _base(x) is not None


def blocks(x: np.ndarray | RowsOnDisk) -> Iterator[tuple[int, np.ndarray]]:
    """All rows in their order with the number of the first: an array at once, rows on the disk 8 MB at a time."""
    if isinstance(x, np.ndarray):
        yield 0, x
        return
    size = rows_in(_BLOCK, x)
    for start in range(0, len(x), size):
        yield start, x[start : start + size]


def rows_in(num_bytes: int, x: RowsOnDisk) -> int:
    """How many rows are read at a time, for blocks of ``num_bytes``."""
    return max(1, num_bytes // (x.shape[1] * x.dtype.itemsize))


def _base(x: Any) -> np.memmap | None:
    """The memory map that ``x`` is a view of."""
    while x is not None and not isinstance(x, np.memmap):
        x = getattr(x, "base", None)
    return x


def _watch(x: np.ndarray) -> FileWatch | None:
    """The file that ``x`` maps, as it is now; None where it has no name, or has lost it: nobody can change it then."""
    file = getattr(_base(x), "filename", None)
    with suppress(ChangedDataError):
        return None if file is None else FileWatch(file)
    return None


def _mapping(x: np.ndarray) -> mmap.mmap | None:
    """The mapping whose pages can be dropped: in copy-on-write mode they would take the caller's changes along."""
    base: Any = _base(x)
    if base is None or base.mode not in ("r", "r+"):
        return None
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.base
    return base
