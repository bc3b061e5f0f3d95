"""Threads that wait for each other give their cores away soon, where OpenMP would have them spin."""

import os

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
