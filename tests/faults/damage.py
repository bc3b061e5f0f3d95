"""What happens to the bytes of a file that is carried about: cut short, flipped, overwritten, moved."""

from collections.abc import Callable
from random import Random


def cut(content: bytes, rng: Random) -> bytes:
    """The beginning only."""
    return content[: rng.randrange(len(content) + 1)]


def flip(content: bytes, rng: Random) -> bytes:
    """A few bits turned over."""
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(content: bytes, rng: Random) -> bytes:
    """A stretch of the file with zeros, ones or noise in its place."""
    start, length = _stretch(content, rng)
    filling = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    return content[:start] + filling + content[start + length :]


def insert(content: bytes, rng: Random) -> bytes:
    """A few bytes too many."""
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.randbytes(rng.choice([1, 2, 4, 100])) + content[place:]


def remove(content: bytes, rng: Random) -> bytes:
    """A stretch missing."""
    start, length = _stretch(content, rng)
    return content[:start] + content[start + length :]


def repeat(content: bytes, rng: Random) -> bytes:
    """A stretch twice."""
    start, length = _stretch(content, rng)
    return content[: start + length] + content[start:]


def enlarge(content: bytes, rng: Random) -> bytes:
    """A number of four or eight bytes that has become enormous, negative, or zero."""
    width = rng.choice([4, 8])
    place = rng.randrange(max(1, len(content) - width))
    number = rng.choice([0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width) - 1, 10**9, 2**31])
    return content[:place] + number.to_bytes(width, "little") + content[place + width :]


DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (cut, flip, overwrite, insert, remove, repeat, enlarge)


def damaged(content: bytes, rng: Random) -> bytes:
    """``content`` with one to three damages."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if content:
            content = rng.choice(DAMAGES)(content, rng)
    return content


def _stretch(content: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(content))
    return start, min(rng.choice([1, 4, 16, 256]), len(content) - start)
