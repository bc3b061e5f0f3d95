"""Text in and out: strangers' words made fit to be shown, and ArviZ kept quiet."""

import unicodedata
import warnings
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
