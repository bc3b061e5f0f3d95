"""Text in and out: strangers' words made fit to be shown, the command line's streams, ArviZ kept quiet."""

import errno
import os
import sys
import unicodedata
import warnings
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType

# Marks that turn the direction of the text after them: a name with one could make a sentence read otherwise
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Unicode categories of control characters, halves of characters, and separators of lines and paragraphs
_HIDDEN = frozenset(("Cc", "Cs", "Zl", "Zp"))


def printable(text: str) -> str:
    r"""``text`` with characters that steer a terminal, break a file or turn the direction of writing escaped.

    >>> print(printable("\x1b[31mred\u202e, and a line\nmore, 東京"))
    \x1b[31mred\u202e, and a line
    more, 東京
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(ascii(sign)[1:-1] if _is_hidden(sign) else sign for sign in text)


def _is_hidden(sign: str) -> bool:
    return sign in _TURNS or (unicodedata.category(sign) in _HIDDEN and sign not in "\n\t")


def quiet_arviz() -> ModuleType:
    """The module ``arviz``, 0.23 or 1.x.

    Once a day 0.23 announces 1.0 with a ``FutureWarning`` at import. The warning is no news for a reader of our
    results, and under ``-W error`` it would stop the import half way.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    return arviz


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
