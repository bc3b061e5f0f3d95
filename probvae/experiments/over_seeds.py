"""Runs that differ in their seed alone, taken together: means whose standard errors include the seed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from probvae.diagnostics.verdicts import mean_with_error
from probvae.experiments.compare import Comparison, Entry, differing, label_of, paired, unpaired, values_of

SEED = "training.seed"
_QUANTITIES = ("elbo", "evidence")


@dataclass(frozen=True)
class OverSeeds:
    """A number of ``num_seeds`` fits: its mean ``value`` and ``standard_error``, in nats per datum.

    ``between_seeds`` is the standard deviation of the fits' numbers.
    """

    value: float
    standard_error: float
    between_seeds: float
    num_seeds: int

    def as_data(self) -> dict[str, float | int]:
        """The numbers as plain data."""
        return {
            "value": self.value,
            "standard_error": self.standard_error,
            "between_seeds": self.between_seeds,
            "num_seeds": self.num_seeds,
        }


@dataclass(frozen=True)
class SeedGroup:
    """Fits of one recipe with several seeds: their ``label``, the ``entries``, and their numbers by name.

    ``means`` has "elbo", "evidence" and "gap", and ``differences`` the first two, to the group of the baseline; where
    not every fit has a number it is missing. Each fit's training rows have made its scaling: the means are those of one
    scaling, the average of all.
    """

    label: str
    entries: list[Entry]
    means: dict[str, OverSeeds]
    differences: dict[str, OverSeeds]

    def as_data(self) -> dict[str, Any]:
        """The group as plain data, for compare.json."""
        return {
            "label": self.label,
            "runs": [entry.name for entry in self.entries],
            "seeds": [_seed(entry) for entry in self.entries],
            **{name: number.as_data() for name, number in self.means.items()},
            "difference": {name: number.as_data() for name, number in self.differences.items()},
        }


def combined(values: Sequence[float], errors: Sequence[float], same_data: bool) -> OverSeeds:
    r"""The mean of ``values`` of K fits, whose ``errors`` over the data are known.

    .. math:: \operatorname{se}^2 = \frac{s^2}{K} + \frac{1}{K} \sum_k \operatorname{se}_k^2 \cdot
              \begin{cases} 1 & \text{the same data in all fits} \\ 1/K & \text{other data in each} \end{cases}

    with s^2 the variance between fits. The data's error does not shrink with the number of fits to the same data; where
    each has its own, s^2 holds it too, and the result errs on the side of the larger one.

    >>> round(combined([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], same_data=True).standard_error ** 2, 3)
    0.333
    """
    number = len(values)
    between = statistics.stdev(values)
    of_data = statistics.fmean(error**2 for error in errors) / (1 if same_data else number)
    return OverSeeds(statistics.fmean(values), math.sqrt(between**2 / number + of_data), between, number)


def seed_groups(comparison: Comparison) -> list[SeedGroup]:
    """The groups of runs that differ in their seed alone; none where no recipe was fitted with several seeds."""
    members: list[list[Entry]] = []
    for entry in comparison.entries:
        group = next((some for some in members if _differ_in_seed(some[0], entry)), None)
        if group is None:
            members.append([entry])
        else:
            group.append(entry)
    members = [some for some in members if len(some) > 1]
    if not members:
        return []
    keys = [{k: v for k, v in keys.items() if k != SEED} for keys in differing([some[0].recipe for some in members])]
    labels = [label_of(changed) or some[0].name for changed, some in zip(keys, members, strict=True)]
    if len(set(labels)) < len(labels):
        labels = [some[0].name for some in members]
    base, shift = _base(comparison, members), _log_volume(comparison.entries)
    return [
        SeedGroup(label, some, _means(some, shift), {} if some is base else _differences(base, some))
        for label, some in zip(labels, members, strict=True)
    ]


def _differ_in_seed(first: Entry, second: Entry) -> bool:
    return set(differing([first.recipe, second.recipe])[0]) == {SEED} and _seed(first) != _seed(second)


def _seed(entry: Entry) -> int:
    return int(entry.recipe["training"]["seed"])


def _base(comparison: Comparison, members: list[list[Entry]]) -> list[Entry]:
    """The group with the baseline in it, or else the one with the largest mean ELBO."""
    chosen = comparison.entries[comparison.baseline]
    own = next((some for some in members if any(entry is chosen for entry in some)), None)
    return own or max(members, key=lambda some: statistics.fmean(float(entry.elbo.mean()) for entry in some))


def _log_volume(entries: Sequence[Entry]) -> float:
    """The average by which log densities of scaled data are above those in the user's units, in nats."""
    volumes = [entry.log_volume for entry in entries if entry.log_volume is not None and entry.measure == "density"]
    return statistics.fmean(float(volume.mean()) for volume in volumes) if volumes else 0.0


def _means(entries: list[Entry], shift: float) -> dict[str, OverSeeds]:
    same = len({entry.held_out for entry in entries}) == 1
    found = {}
    for name in _QUANTITIES:
        tensors = [values_of(entry, name) for entry in entries]
        own = shift if entries[0].measure == "density" else 0.0
        numbers = [mean_with_error(values + own) for values in tensors if values is not None]
        if len(numbers) == len(entries):
            found[name] = _combined(numbers, same)
    gaps = [entry.summary["gap"].get("total") for entry in entries]
    if all(gap is not None for gap in gaps):
        found["gap"] = _combined(gaps, same)
    return found


def _combined(numbers: Sequence[dict[str, Any]], same_data: bool) -> OverSeeds:
    errors = [number["standard_error"] or 0.0 for number in numbers]
    return combined([number["value"] for number in numbers], errors, same_data)


def _differences(base: list[Entry], others: list[Entry]) -> dict[str, OverSeeds]:
    """Seed by seed, over the seeds that both groups have, where there are two of them at least."""
    first = {_seed(entry): entry for entry in base}
    pairs = [(first[_seed(entry)], entry) for entry in others if _seed(entry) in first]
    if len(pairs) < 2:
        return {}
    same = len({entry.held_out for pair in pairs for entry in pair}) == 1
    found = {}
    for name in _QUANTITIES:
        values = [(values_of(a, name), values_of(b, name), a.held_out == b.held_out) for a, b in pairs]
        parts = [_difference(a, b, paired_rows) for a, b, paired_rows in values if a is not None and b is not None]
        if len(parts) == len(pairs) and all(a.measure == b.measure != "none" for a, b in pairs):
            found[name] = combined([part[0] for part in parts], [part[1] for part in parts], same)
    return found


def _difference(first: Tensor, second: Tensor, same_rows: bool) -> tuple[float, float]:
    difference = paired(first, second) if same_rows else unpaired(first, second)
    return difference.value, difference.standard_error or 0.0
