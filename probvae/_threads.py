"""As many threads as the work is worth."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Below this, waking the threads costs more than they save; on a busy machine, where one of them has to wait
# for a core at every operation, several times as much.
_WORTH_THREADS = 5e8  # floating-point operations of one training step


@contextmanager
def threads_for_step(num_parameters: int, batch_size: int) -> Iterator[None]:
    """One thread inside the block where a step is small, torch's own number where it is not.

    The rule reads sizes, not the clock or the machine: the same fit takes the same path everywhere.
    """
    before = torch.get_num_threads()
    # forward once, backward twice, a multiplication and an addition for each parameter and datum
    small = 6.0 * num_parameters * batch_size < _WORTH_THREADS
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
