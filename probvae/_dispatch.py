"""What watches or changes each of torch's operators inside a block."""

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """torch's own, without its guard against its compiler, which imports that, for longer than a short fit takes.

    >>> import torch
    >>> class Count(DispatchMode):
    ...     number = 0
    ...
    ...     def __torch_dispatch__(self, func, types, args=(), kwargs=None):
    ...         self.number += 1
    ...         return func(*args, **(kwargs or {}))
    >>> with Count() as count:
    ...     x = torch.ones(3) + 1
    >>> count.number
    2
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
