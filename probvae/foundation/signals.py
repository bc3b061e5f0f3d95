"""Ctrl-C and SIGTERM: heard in every command, noticed between two steps, told before a process ends."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from probvae.errors import TerminatedError


@contextmanager
def first_signal(act: Callable[[signal.Signals], None], *numbers: signal.Signals) -> Iterator[None]:
    """The first of these signals inside the block calls ``act``; from then on they do what they did before.

    Without ``numbers``, the signals are SIGINT and SIGTERM. Python hands signals to the main thread, so that in another
    thread nothing is noticed and nothing changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers or (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        restore()
        act(signal.Signals(number))

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        restore()


def terminate(number: signal.Signals) -> NoReturn:
    """Raise :class:`~probvae.errors.TerminatedError`, so that open files are closed and half-made ones removed."""
    raise TerminatedError(number)


class Interruption:
    """``signal`` is the first signal that came, None before."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def note(self, number: signal.Signals) -> None:
        """Remember that signal ``number`` has come."""
        self.signal = number


@contextmanager
def noticed_signals() -> Iterator[Interruption]:
    """The first SIGINT or SIGTERM inside the block only makes a note; the second acts as it did before."""
    interruption = Interruption()
    with first_signal(interruption.note):
        yield interruption
