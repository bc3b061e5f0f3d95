"""What the launcher (``torchrun``, or a batch system that sets the same variables) says of this process."""

import os


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
