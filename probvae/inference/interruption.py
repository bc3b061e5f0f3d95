"""Ctrl-C and SIGTERM, noticed between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from probvae._signals import first_signal


class Interruption:
    """``signal`` is the one that came, None before."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def note(self, number: signal.Signals) -> None:
        """This one has come."""
        self.signal = number


@contextmanager
def noticed_signals() -> Iterator[Interruption]:
    """SIGINT and SIGTERM only make a note inside the block; the second one does what it did before."""
    interruption = Interruption()
    with first_signal(interruption.note):
        yield interruption
