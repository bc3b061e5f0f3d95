"""This process: its threads, its memory, how its threads wait, its streams, and what a launcher says of it."""

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

from probvae.errors import ConfigError

# Numbers of mallopt's parameters in malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 256 * 2**20
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc takes no larger one
_MARGIN = 2**16  # bytes that the library may add to a block
_LONGEST_NUMBER = 10  # digits
# Bytes of address space below which importing torch ends the process from within C++
_LEAST_ADDRESSES = 768 * 2**20


def keep_freed_memory() -> bool:
    """Let glibc keep up to 256 MB that were freed, and take blocks below 32 MB from them.

    By default glibc gives freed blocks back to the system and asks for zeroed pages anew: hundreds of page faults in
    each step of a small fit, a fifth of the time and more. The function is meant for a process of our own (the command
    line), changes no result, and returns whether the C library has such a setting.

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


def check_address_space() -> None:
    """Raise :class:`MemoryError` where this process may not have the addresses that torch alone takes (ulimit -v)."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESSES:
        raise MemoryError(
            f"the address space is limited to {limit >> 20} MB by `ulimit -v`, and torch alone takes about 800 MB"
        )


# About 50 microseconds: longer than the time between two operators, and short beside a turn of another process
_SPINS = "5000"


def wait_briefly(environment: "os._Environ[str] | dict[str, str]" = os.environ) -> None:
    """Let GNU OpenMP's threads spin for a moment only; to be called before torch is imported.

    By default threads spin for milliseconds. On a shared machine, the thread that the others wait for may have lost its
    core to another process, and the spinning threads keep the other cores busy: many small operators on two threads
    then take ten times as long. The function is meant for a process of our own (the command line), leaves a setting of
    the user's as it is, and changes no result.

    >>> environment = {}
    >>> wait_briefly(environment)
    >>> environment
    {'GOMP_SPINCOUNT': '5000'}
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", _SPINS)


# Below this number, waking the threads costs more than they save: several times more on a busy machine, where at every
# operation one thread has to wait for a core.
_WORTH_THREADS = 5e8  # floating-point operations of one training step


@contextmanager
def threads_for_step(num_parameters: int, batch_size: int) -> Iterator[None]:
    """One thread inside the block where a step is small, torch's own number where it is not.

    The rule reads sizes, not the clock or the machine: the same fit takes the same path everywhere.
    """
    import torch

    before = torch.get_num_threads()
    # One forward and two backward products, each with a multiplication and an addition a parameter and datum
    small = 6.0 * num_parameters * batch_size < _WORTH_THREADS
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


def num_launched() -> int:
    """The number of processes that a launcher started together, 1 without a launcher.

    Raises :class:`~probvae.errors.ConfigError`, as the two functions below, for a variable that holds no such number.
    """
    launched = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()
    return launched_number("WORLD_SIZE", 1) if launched else 1


def launched_rank() -> int:
    """The rank of this process, 0 for the process that writes files."""
    size = num_launched()
    return launched_number("RANK", 0, size - 1) if size > 1 else 0


def local_rank() -> int:
    """The rank of this process on its machine, which is the number of its GPU too."""
    return launched_number("LOCAL_RANK", 0) if num_launched() > 1 and "LOCAL_RANK" in os.environ else 0


def launched_number(name: str, least: int, most: int | None = None) -> int:
    """The number in a variable of the environment that ``torchrun`` sets.

    >>> launched_number("NOT_THERE", 1)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    probvae.errors.ConfigError: NOT_THERE: expected a whole number of at least 1, got ''. Start the processes with ...
    """
    text = os.environ.get(name, "")
    number = int(text) if text.isdecimal() and len(text) < _LONGEST_NUMBER else -1
    if number < least or (most is not None and number > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(
            f"{name}: expected a whole number {span}, got {text!r}. Start the processes with torchrun, which sets "
            f"{name}, or remove it (and RANK, WORLD_SIZE, MASTER_ADDR) from the environment."
        )
    return number
