"""Places where a test of reliability can end this process, or fill its disk."""

import errno
import os
import signal
from collections import Counter

VARIABLE = "PROBVAE_FAULT"
_passed: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """Nothing, unless ``PROBVAE_FAULT`` names this place, as in ``checkpoint-flushed:3:kill``.

    The third time that the place is passed, the process is killed as by a power cut (``kill``), or the operating
    system's error of a full disk is raised (``full``).
    """
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return
    place, number, what = asked.split(":")
    _passed[name] += 1
    if place != name or _passed[name] != int(number):
        return
    if what == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.kill(os.getpid(), signal.SIGKILL)
