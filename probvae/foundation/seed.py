"""Random numbers that leave the caller's generators as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def ambient_seed() -> int:
    """A seed from torch's global generator, one number of it whatever is drawn from the seed."""
    return int(torch.randint(2**62, ()))


@contextmanager
def isolated_seed(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch inside the block; on leaving it, restore the state that was there before.

    Python's generator is left as it was too: some packages draw from it where they are imported.
    """
    device = torch.device(device)
    devices = [device] if device.type == "cuda" else []
    before = random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(before)
