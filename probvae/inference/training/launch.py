"""The start of processes that ``torchrun`` launched: they find each other, and say so where that takes long."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Timer

import torch
import torch.distributed as dist
from torch.distributed import rendezvous  # type: ignore[attr-defined]  # its __all__ names less than its documentation

from probvae.errors import RankError
from probvae.foundation.process import launched_number, launched_rank, local_rank, num_launched, tell

# A launcher starts all processes at once, so those that do not come in this time were never started
START_TIMEOUT = timedelta(minutes=2)
# Seconds after which a process says what it waits for
_SILENCE = 5.0
_LARGEST_PORT = 2**16 - 1
_LEFTOVER = "If only this process was started, remove RANK, WORLD_SIZE and MASTER_ADDR from its environment"


def join(timeout: timedelta) -> None:
    """Join torch's default process group, whose exchanges then take up to ``timeout`` each.

    On CPUs the processes talk through gloo, about CUDA tensors through NCCL. Raises
    :class:`~probvae.errors.ConfigError` for variables of the launcher that hold no numbers, and
    :class:`~probvae.errors.RankError` where the others do not come in ``START_TIMEOUT``.
    """
    rank, size, port = launched_rank(), num_launched(), launched_number("MASTER_PORT", 0, _LARGEST_PORT)
    local_rank()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    patience = min(timeout, START_TIMEOUT)
    place = f"{os.environ['MASTER_ADDR']}:{port}"
    try:
        with _told(rank, size, place, patience):
            store, rank, size = next(iter(rendezvous("env://", timeout=patience)))
            store.set_timeout(timeout)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RankError(
            f"distributed: rank {rank} lost the other processes at {place}, before all {size} had come ({reason}). "
            f"Start all of them again with torchrun. {_LEFTOVER}."
        ) from error


@contextmanager
def _told(rank: int, size: int, place: str, patience: timedelta) -> Iterator[None]:
    """After some seconds in the block, say on standard error what this process waits for."""
    message = (
        f"probvae: rank {rank} of {size} waits for the other processes at {place} (for {patience.total_seconds():g} "
        f"seconds at most). {_LEFTOVER}."
    )
    timer = Timer(_SILENCE, tell, (message,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
