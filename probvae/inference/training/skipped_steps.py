"""Steps of a fit that were not taken because their loss or gradient was not finite."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self


class Trouble(NamedTuple):
    """Where a step could not be taken, and why.

    >>> str(Trouble("x", 2, 7, "the loss is nan"))
    "site 'x', epoch 2, batch 7: the loss is nan"
    """

    site: str
    epoch: int
    batch: int
    reason: str

    def __str__(self) -> str:
        return f"site {self.site!r}, epoch {self.epoch}, batch {self.batch}: {self.reason}"


@dataclass
class SkippedSteps:
    """How many they are, and where the first and the latest row of them began."""

    total: int = 0
    in_epoch: int = 0
    in_a_row: int = 0
    rows: list[Trouble] = field(default_factory=list)

    def add(self) -> None:
        """Count one more."""
        self.total, self.in_epoch, self.in_a_row = self.total + 1, self.in_epoch + 1, self.in_a_row + 1

    def begin_row(self, trouble: Trouble) -> None:
        """A step was taken before the next one to count."""
        self.rows = [*self.rows[:1], trouble]

    def numbers(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)

    @classmethod
    def of(cls, numbers: Mapping[str, Any]) -> Self:
        """Take up what :meth:`numbers` gave."""
        return cls(**{**numbers, "rows": [Trouble(*row) for row in numbers["rows"]]})
