"""A positive parameter of a likelihood: a number, or learned, one for all dimensions or one for each."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from probvae._shapes import check_positive
from probvae.errors import unknown_name

MODES = {"learned": "one parameter, trained with the rest", "per-dimension": "one parameter a data dimension"}


class PositiveParameter(nn.Module):
    """``value()`` is () or (D,): fixed at ``given``, or learned from ``initial`` on and never below ``minimum``."""

    fixed: Tensor

    def __init__(self, name: str, given: float | str, data_dim: int, initial: float, minimum: float) -> None:
        super().__init__()
        check_positive(initial, f"initial_{name}")
        check_positive(minimum, f"minimum_{name}")
        self.minimum, self.learned = minimum, isinstance(given, str)
        if isinstance(given, str):
            if given not in MODES:
                raise unknown_name(name, given, MODES)
            start = max(initial - minimum, minimum)
            self.log_value = nn.Parameter(torch.full(() if given == "learned" else (data_dim,), start).log())
        else:
            check_positive(given, name)
            self._given = float(given)
            self.register_buffer("fixed", torch.tensor(self._given))

    def value(self) -> Tensor:
        """The parameter."""
        return self.minimum + self.log_value.exp() if self.learned else self.fixed

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Behind ``.to()`` and ``.double()``: a number that was given keeps no rounding of the dtype it began in."""
        super()._apply(*args, **kwargs)
        if not self.learned:
            self.fixed.fill_(self._given)
        return self
