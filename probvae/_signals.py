"""Ctrl-C and SIGTERM, and what is to be done before they end a process."""

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
