"""A file that is read for hours: is it still the one that the reading began with?"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from probvae.errors import ChangedDataError

# Places of a file whose bytes are compared, from its beginning to its end, and the bytes of each
_PLACES, _BYTES = 64, 4096


class _Status(NamedTuple):
    """The system's knowledge of a file, by the words of a message."""

    size: int
    time: int
    identity: tuple[int, int]


class FileWatch:
    """The file ``path`` as it is now: its size, its time, which file it is, and its bytes at 64 places.

    A change of some bytes that leaves the time as it was is seen only where it meets one of these places. A file that
    is cut between :meth:`check_size` and the read after it, which takes milliseconds, ends the process with SIGBUS: a
    mapped page that is gone cannot be told from within Python.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._status = self._read_status()
        self._samples = self._read_samples()

    def check_size(self) -> None:
        """Raise :class:`~probvae.errors.ChangedDataError` where the file is gone or has another size; takes 2 us."""
        self._check(("size",))

    def check(self) -> None:
        """Raise :class:`~probvae.errors.ChangedDataError` where anything that is known of the file has changed."""
        self._check(_Status._fields)
        if self._read_samples() != self._samples:
            raise self._changed("its values are other ones")

    def _check(self, names: tuple[str, ...]) -> None:
        now = self._read_status()
        for name in names:
            if getattr(now, name) != getattr(self._status, name):
                told = f" ({now.size} bytes, {self._status.size} before)" if name == "size" else ""
                raise self._changed(f"its {name} is another one{told}")

    def _read_status(self) -> _Status:
        try:
            found = self.path.stat()
        except OSError as error:
            raise self._changed(f"it cannot be read: {error.strerror}") from error
        return _Status(found.st_size, found.st_mtime_ns, (found.st_dev, found.st_ino))

    def _read_samples(self) -> bytes:
        digest, step = hashlib.blake2b(), max(1, self._status.size - _BYTES) / (_PLACES - 1)
        try:
            with self.path.open("rb", buffering=0) as file:
                for place in range(_PLACES):
                    file.seek(int(place * step))
                    digest.update(file.read(_BYTES))
        except OSError as error:
            raise self._changed(f"it cannot be read: {error.strerror}") from error
        return digest.digest()

    def _changed(self, reason: str) -> ChangedDataError:
        return ChangedDataError(
            f"{self.path}: the file has changed since the data were read first ({reason}). Leave it alone during a fit."
        )
