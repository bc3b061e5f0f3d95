"""Ctrl-C and SIGTERM, noticed between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """``signal`` is the one that came, None before."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


@contextmanager
def noticed_signals() -> Iterator[Interruption]:
    """SIGINT and SIGTERM only make a note inside the block; the second one does what it did before.

    Python hands signals to the main thread: in another one nothing is noticed, and nothing changed.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        interruption.signal = signal.Signals(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()
