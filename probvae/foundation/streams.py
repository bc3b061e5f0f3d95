"""Standard output and error of the command line: they take any text, and their faults end no fit."""

import errno
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path


def prepare_streams() -> None:
    """Let both streams take any text, and have something in the place of one that is closed.

    Signs that the encoding lacks (a data set's name in Japanese on a terminal of ASCII) are written as escapes.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # open to the end
        elif isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def output_fault() -> OSError | None:
    """The system's error where standard output takes no more text; a reader that has gone is none.

    The text that could not be written is dropped: Python would complain of it once more when it ends.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        drop_output()
        return None if error.errno == errno.EPIPE else error
    return None


def drop_output() -> None:
    """Let all that is still to be written to standard output go nowhere."""
    with suppress(OSError, ValueError, AttributeError):  # a stream in memory has no number
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def tell(text: str, end: str = "\n") -> None:
    """Print ``text`` on standard error, if that can be written: nobody can be told where it cannot."""
    with suppress(OSError, ValueError):
        sys.stderr.write(text + end)
        sys.stderr.flush()
