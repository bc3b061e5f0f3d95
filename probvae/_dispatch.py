"""Modes that see every operation, without torch's compiler."""

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """torch's own, whose guard against its compiler would import the compiler, for more than a second."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
