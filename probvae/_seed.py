"""Random numbers of our own: the caller's generators are left as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def isolated_seed(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch inside the block; on leaving it, restore the state that was there before."""
    device = torch.device(device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
