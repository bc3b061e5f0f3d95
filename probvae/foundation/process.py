"""This process: its threads, its memory, how its threads wait, and what a launcher says of it."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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


# About 50 microseconds: longer than what lies between two operators, and short beside a turn of another process
_SPINS = "5000"


def wait_briefly(environment: "os._Environ[str] | dict[str, str]" = os.environ) -> None:
    """Let GNU OpenMP's threads spin for a moment only; to be called before torch is imported.

    By its default they spin for milliseconds. On a machine that is shared, the one that they wait for may have lost its
    core to another process, and they keep the other cores from doing work: many small operators on two threads then
    take ten times as long. For a process of our own (the command line); a setting of the user's stays as it is. It
    changes no result.

    >>> environment = {}
    >>> wait_briefly(environment)
    >>> environment
    {'GOMP_SPINCOUNT': '5000'}
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", _SPINS)


# Below this, waking the threads costs more than they save; on a busy machine, where one of them has to wait
# for a core at every operation, several times as much.
_WORTH_THREADS = 5e8  # floating-point operations of one training step


@contextmanager
def threads_for_step(num_parameters: int, batch_size: int) -> Iterator[None]:
    """One thread inside the block where a step is small, torch's own number where it is not.

    The rule reads sizes, not the clock or the machine: the same fit takes the same path everywhere.
    """
    import torch

    before = torch.get_num_threads()
    # forward once, backward twice, a multiplication and an addition for each parameter and datum
    small = 6.0 * num_parameters * batch_size < _WORTH_THREADS
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def num_launched() -> int:
    """How many processes were started together, this one among them; 1 without a launcher."""
    launched = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()
    return int(os.environ["WORLD_SIZE"]) if launched else 1


def launched_rank() -> int:
    """The number of this process, 0 for the one that writes."""
    return int(os.environ["RANK"]) if num_launched() > 1 else 0


def local_rank() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if num_launched() > 1 else 0
