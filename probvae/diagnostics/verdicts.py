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
NATS, LEAST_NATS, COVERAGE = "nats", "nats at least", "coverage"
# Effects that matter: a test warns from the first on, and fails from the second on, as long as its p-value says so too.
# Nats are those of a KL per datum: a fail begins where the ledger's warning does. Coverage is the difference between
# the share of cases that should be in a region and the share that is: 90 % intervals that hold 80 % are off by 0.1, as
# they are with standard deviations too small by 20 %, which costs 0.06 nats. A single number of the data (its mean, its
# kurtosis) gives a lower bound of KL(data || model), and less of it is enough: 0.02 nats are 0.2 standard deviations.
MATTERS = {NATS: (0.02, 0.05), LEAST_NATS: (0.005, 0.02), COVERAGE: (0.05, 0.1)}
_Z = 1.96  # both ends of a 95 % interval
_NOTHING = 1e-9


@dataclass(frozen=True)
class Effect:
    """The size of what a test looks for: ``value`` in its 95 % interval ``low`` to ``high``, all at least zero.

    ``unit`` is ``"nats"`` (of a KL per datum), ``"nats at least"`` (a lower bound of one) or ``"coverage"`` (a
    difference of two shares of cases), ``what`` says in words what has this size.
    """

    value: float
    low: float
    high: float
    unit: str
    what: str = ""

    @classmethod
    def of_mean(cls, shift: float, error: float, what: str = "", unit: str = NATS) -> "Effect":
        """The nats of a mean that is off by ``shift`` standard deviations, with its standard ``error``: shift^2 / 2.

        >>> Effect.of_mean(0.3, 0.05).value
        0.045
        """
        size = abs(shift)
        low, high = (max(0.0, size + sign * _Z * error) ** 2 / 2 for sign in (-1, 1))
        return cls(size**2 / 2, low, high, unit, what)

    @classmethod
    def of_share(cls, share: float, expected: float, num: int, what: str = "") -> "Effect":
        """The coverage that is off where a ``share`` of ``num`` cases is in a region for ``expected`` of them.

        The interval is Wilson's, which is right for few cases too.
        """
        centre = (share + _Z**2 / (2 * num)) / (1 + _Z**2 / num)
        half = _Z / (1 + _Z**2 / num) * math.sqrt(share * (1 - share) / num + (_Z / (2 * num)) ** 2)
        return cls.between(abs(share - expected), abs(centre - expected), half, what)

    @classmethod
    def between(cls, value: float, centre: float, half: float, what: str = "") -> "Effect":
        """A difference of shares ``value`` with the interval ``centre`` +- ``half``, cut at 0 and 1."""
        return cls(value, max(0.0, centre - half), min(1.0, centre + half), COVERAGE, what)

    @property
    def warns(self) -> bool:
        """True for a size that is enough for a warning."""
        return self.value >= MATTERS[self.unit][0]

    @property
    def fails(self) -> bool:
        """True for a size that is enough for a fail."""
        return self.value >= MATTERS[self.unit][1]

    @property
    def at_most(self) -> str:
        """The size that a test which passed leaves possible, in words."""
        size = f"{self.high:.1%} off" if self.unit == COVERAGE else f"{_short(self.high)} nats"
        return f"at most {size} {self.what}".rstrip()

    def __str__(self) -> str:
        if self.unit != COVERAGE:
            value, *ends = (_short(number) for number in (self.value, self.low, self.high))
            told = f"{'at least ' * (self.unit == LEAST_NATS)}{value} nats [{', '.join(ends)}]"
        else:
            told = f"off by {self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"
        return f"{told} {self.what}".rstrip()


@dataclass(frozen=True)
class Verdict:
    """``status`` is ``"ok"``, ``"warn"``, ``"fail"`` or ``"not computed"``; ``message`` says it in a sentence.

    ``value`` was compared with ``threshold``; both are None where nothing was computed. ``effect`` is the size of what
    a test looked for, None for a verdict that is no test.
    """

    name: str
    status: str
    value: float | None
    threshold: float | None
    message: str
    effect: Effect | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with None for a value that is not finite; ``effect`` where there is one."""
        plain = {key: _finite(value) for key, value in asdict(self).items() if value is not None or key != "effect"}
        if self.effect is not None:
            plain["effect"] = {key: _finite(value) for key, value in asdict(self.effect).items()}
        return plain


@dataclass(frozen=True)
class HypothesisTest:
    """A test of a diagnostic: ``p_value`` is uniform on (0, 1), or larger, when the posterior is right.

    ``passed`` and ``rejected`` are what to say in each case: one sentence, the second with what it means. A p-value
    that is NaN could not be computed, and both say why. ``effect`` is the size of the difference: with many data a
    small p-value is no fault by itself. Without an effect the p-value decides alone.
    """

    name: str
    p_value: float
    passed: str
    rejected: str
    effect: Effect | None = None


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
    """A verdict for each test, by its p-value adjusted for all of them that have one, and by the size of its effect."""
    adjusted = iter(holm([test.p_value for test in tests if not math.isnan(test.p_value)]))
    return [
        NotComputed(test.name, test.passed).verdicts()[0] if math.isnan(test.p_value) else _judged(test, next(adjusted))
        for test in tests
    ]


def _judged(test: HypothesisTest, adjusted: float) -> Verdict:
    effect = test.effect
    warns, fails = (True, True) if effect is None else (effect.warns, effect.fails)
    status = FAIL if adjusted < FAIL_LEVEL and fails else WARN if adjusted < WARN_LEVEL and warns else OK
    said = test.passed if adjusted >= WARN_LEVEL else test.rejected
    said += "; a real difference, too small to matter" if status == OK and adjusted < WARN_LEVEL else ""
    size = "" if effect is None else f"{effect if adjusted < WARN_LEVEL else effect.at_most}; "
    return Verdict(
        test.name, status, adjusted, FAIL_LEVEL, f"{said} ({size}adjusted p {told_p_value(adjusted)})", effect
    )


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


def _short(nats: float) -> str:
    return f"{nats:.2g}" if nats >= 1e-3 else "< 0.001" if nats > 0 else "0"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
