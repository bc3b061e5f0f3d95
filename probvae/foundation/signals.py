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

    Without ``numbers``: SIGINT and SIGTERM. Python hands signals to the main thread: in another one nothing is noticed,
    and nothing changed.
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
    """Raise: what is open is closed on the way out, and what was begun removed, as after Ctrl-C."""
    raise TerminatedError(number)


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
