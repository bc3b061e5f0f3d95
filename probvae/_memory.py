"""Freed memory is kept by the process, where the C library would hand it back at every step."""

import ctypes
import sys

# of mallopt, in malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 256 * 2**20
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc takes no larger one
_MARGIN = 2**16  # for what the library adds to a block


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


def reuse_freed_memory() -> None:
    """Have freed blocks below 32 MB used again by the process, by freeing one large block that nobody wrote to.

    glibc takes the size of the largest block that was freed for its threshold between memory that is kept and memory
    that is asked for anew, and zeroed page by page: for tensors of a few megabytes that costs a third of the time of
    an evaluation. No setting is changed: a program that has once freed a tensor of 32 MB is there already.
    """
    import torch

    torch.empty(_LARGEST_MMAP_THRESHOLD - _MARGIN, dtype=torch.uint8)
