"""A positive parameter of a likelihood: fixed, or learned, one for all dimensions or one for each."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from probvae.errors import ArgumentError, unknown_name
from probvae.foundation.checks import check_positive

MODES = {"learned": "one parameter, trained with the rest", "per-dimension": "one parameter a data dimension"}


class PositiveParameter(nn.Module):
    """``value()`` is () or (D,): fixed at the number ``setting``, or learned from ``initial``, above ``minimum``."""

    fixed: Tensor

    def __init__(self, name: str, setting: float | str, data_dim: int, initial: float, minimum: float) -> None:
        super().__init__()
        check_positive(initial, f"initial_{name}")
        check_positive(minimum, f"minimum_{name}")
        self.name, self.minimum, self.learned = name, minimum, isinstance(setting, str)
        if isinstance(setting, str):
            if setting not in MODES:
                raise unknown_name(name, setting, MODES)
            if initial <= minimum:
                raise ArgumentError(
                    f"minimum_{name}: expected less than the initial {name} {initial:g}, got {minimum:g}. "
                    f"Lower minimum_{name}, or rescale the data."
                )
            start = torch.full(() if setting == "learned" else (data_dim,), initial - minimum)
            self.log_value = nn.Parameter(start.log())
        else:
            check_positive(setting, name)
            self._number = float(setting)
            self.register_buffer("fixed", torch.tensor(self._number))

    def value(self) -> Tensor:
        """The parameter, () or (D,)."""
        return self.minimum + self.log_value.exp() if self.learned else self.fixed

    @torch.no_grad()
    def floor_warning(self) -> str | None:
        """The warning for values within a factor of two of the floor."""
        count = int((self.value() <= 2 * self.minimum).sum()) if self.learned else 0
        return floor_message(self.name, count, self.minimum) if count else None

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Called by ``.to()`` and ``.double()``: a fixed number keeps no rounding of the dtype that it began in."""
        super()._apply(*args, **kwargs)
        if not self.learned:
            self.fixed.fill_(self._number)
        return self


def floor_message(name: str, count: int, minimum: float) -> str:
    """The warning that ``count`` learned variances, or scales, have fallen to their floor."""
    return (
        f"{name}: {count} learned {name}(s) sit on the floor minimum_{name}={minimum:g}. "
        "The data lie on a surface that the decoder reaches (constant columns, or more latent dimensions than the "
        "data need), and the likelihood has no finite maximum there. Drop constant columns, lower latent_dim, or fix "
        f"the {name}."
    )
