"""Text that strangers chose (names of files, columns, labels), made fit to be shown."""

import unicodedata

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
