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

    Only the generators of the CPU and of ``device`` are seeded: ``torch.manual_seed`` seeds those of all devices, which
    takes twenty times as long. Python's generator is left as it was too: some packages draw from it where they are
    imported.

    >>> with isolated_seed(3):
    ...     first = torch.rand(())
    >>> with isolated_seed(3):
    ...     torch.equal(torch.rand(()), first)
    True
    """
    device = torch.device(device)
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()  # the generators are made where CUDA starts
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    is_known = device.type in ("cpu", "cuda")
    python, states = random.getstate(), [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        if not is_known:
            torch.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(python)
