"""The verdict on a diagnostic in one word, the contract of every diagnostic, and tests that are judged together."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

OK, WARN, FAIL, NOT_COMPUTED = "ok", "warn", "fail", "not computed"
# Levels for Holm-adjusted p-values: one report in a hundred (in twenty) of a right posterior has a fail (a warning).
FAIL_LEVEL, WARN_LEVEL = 0.01, 0.05
_SMALLEST_TOLD = 1e-6
_NOTHING = 1e-9


@dataclass(frozen=True)
class Verdict:
    """``status`` is ``"ok"``, ``"warn"``, ``"fail"`` or ``"not computed"``; ``message`` says it in a sentence.

    ``value`` was compared with ``threshold``; both are None where nothing was computed.
    """

    name: str
    status: str
    value: float | None
    threshold: float | None
    message: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with None for a value that is not finite."""
        return {key: _finite(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class HypothesisTest:
    """A test of a diagnostic: ``p_value`` is uniform on (0, 1), or larger, when the posterior is right.

    ``passed`` and ``rejected`` are what to say in each case: one sentence, the second with what it means. A p-value
    that is NaN could not be computed, and both say why.
    """

    name: str
    p_value: float
    passed: str
    rejected: str


class Diagnostic(Protocol):
    """The methods that the result of every diagnostic has."""

    def summary(self) -> dict[str, Any]:
        """The numbers as plain data: means with standard errors, the method, the sample sizes."""

    def verdicts(self) -> list[Verdict]:
        """The verdicts that rest on a threshold of their own."""

    def tests(self) -> list[HypothesisTest]:
        """The tests that are judged together with those of all other diagnostics, by :func:`judge`."""


@dataclass(frozen=True)
class NotComputed:
    """The place of a diagnostic that could not be computed, with the reason; it is shown and never left out."""

    name: str
    reason: str

    def summary(self) -> dict[str, Any]:
        return {"not_computed": self.reason}

    def verdicts(self) -> list[Verdict]:
        return [Verdict(self.name, NOT_COMPUTED, None, None, f"not computed: {self.reason}")]

    def tests(self) -> list[HypothesisTest]:
        return []


def judge(tests: Sequence[HypothesisTest]) -> list[Verdict]:
    """A verdict for each test, by its p-value adjusted for all of them that have one."""
    adjusted = iter(holm([test.p_value for test in tests if not math.isnan(test.p_value)]))
    return [
        NotComputed(test.name, test.passed).verdicts()[0] if math.isnan(test.p_value) else _judged(test, next(adjusted))
        for test in tests
    ]


def _judged(test: HypothesisTest, adjusted: float) -> Verdict:
    status = FAIL if adjusted < FAIL_LEVEL else WARN if adjusted < WARN_LEVEL else OK
    message = test.passed if status == OK else test.rejected
    return Verdict(test.name, status, adjusted, FAIL_LEVEL, f"{message} (adjusted p {told_p_value(adjusted)})")


def told_p_value(p_value: float) -> str:
    """A p-value as a reader needs it: below 1e-6 no reader gains, and the tests' distributions are not known there.

    >>> told_p_value(0.0432), told_p_value(1.6e-18)
    ('= 0.043', '< 1e-6')
    """
    return f"= {p_value:.2g}" if p_value >= _SMALLEST_TOLD else "< 1e-6"


def holm(p_values: Iterable[float]) -> list[float]:
    r"""Adjusted p-values: rejecting those below a has any false rejection with probability at most a.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = list(p_values)
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def mean_with_error(values: Tensor) -> dict[str, float | None]:
    """Mean and standard error of independent ``values`` (N,); a single value has no standard error."""
    values = torch.as_tensor(values).double()
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"value": float(values.mean()), "standard_error": error}


def with_error(value: float, error: float | None) -> str:
    """``0.41 ± 0.02``: the error with two digits, and the value as far as the error goes.

    >>> with_error(0.4137, 0.0213), with_error(-1.1e-16, 0.0), with_error(12.3456, None)
    ('0.414 ± 0.021', '0', '12.3')
    """
    if abs(value) < _NOTHING and (error or 0.0) < _NOTHING:
        return "0"
    if error is None or error < 1e-3 * abs(value):
        return f"{value:.3g}"
    return " ± ".join(to_second_digit(value, error))


def to_second_digit(value: float, error: float) -> tuple[str, str]:
    """Both numbers as far as the second digit of the error, which is above zero.

    >>> to_second_digit(5.07281, 0.58392)
    ('5.07', '0.58')
    """
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f}", f"{error:.{decimals}f}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
