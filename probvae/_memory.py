"""Freed memory is kept by the process, where the C library would hand it back at every step."""

import ctypes
import sys

# of mallopt, in malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 256 * 2**20
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc takes no larger one


def keep_freed_memory() -> bool:
    """Let glibc keep up to 256 MB that were freed, and take blocks below 32 MB from them.

    By its default it gives freed blocks back to the system and asks for zeroed pages anew: hundreds of page faults in
    each step of a small fit, a fifth of the time and more. For a process of our own (the command line); returns
    whether there is such a C library. It changes no result.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT)) and bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD))
