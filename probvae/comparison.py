"""Several runs beside each other: their numbers, and paired differences on the same held-out data."""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from probvae._seed import isolated_seed
from probvae.errors import ConfigError, ProbvaeError, RunError
from probvae.experiment import NUM_SAMPLES, binarized, evaluate, given, ledger_of, load_recipe_data, run_recipe, split
from probvae.inference import bound, posterior_mean
from probvae.recipes import Recipe, merge, parse_value, read_run_recipe
from probvae.vae import load

# A latent is in use when its posterior mean varies by more than this over the data (Burda et al. 2016)
ACTIVE_THRESHOLD = 0.01


@dataclass(frozen=True)
class Entry:
    """One run: its ``name``, what was ``changed`` in it, its numbers, and per-datum ``elbo`` and ``evidence`` (N,)."""

    name: str
    changed: dict[str, Any]
    summary: dict[str, Any]
    elbo: Tensor
    evidence: Tensor | None
    fingerprint: str


def read_entry(run: Path, changed: Mapping[str, Any] | None = None) -> Entry:
    """The numbers of a finished run, on its own held-out data; computed from its weights.

    Raises :class:`~probvae.errors.RunError` for a folder that is no finished run.
    """
    recipe = read_run_recipe(run)
    seed = recipe["training"]["seed"]
    held_out = split(load_recipe_data(recipe), recipe["data"]["held_out"], seed)[1]
    vae = given(recipe, load(run), held_out)
    if not vae.guide.amortized:
        raise RunError(f"{run}: its guide is not amortised, and knows no held-out data. Compare amortised guides.")
    x = binarized(held_out, seed)
    with isolated_seed(seed):
        values = bound(vae, x, NUM_SAMPLES)
    gap, gap_summary = ledger_of(vae, held_out, seed)
    summary = {
        **evaluate(vae, held_out, seed),
        "gap": gap_summary,
        "active_units": int((posterior_mean(vae, x).var(0) > ACTIVE_THRESHOLD).sum()),
        "latent_dim": vae.model.latent_dim,
        **_written(run),
    }
    evidence = None if gap is None else gap.truth.value
    return Entry(run.name, dict(changed or {}), summary, values.elbo, evidence, _identity(x, held_out.fingerprint()))


def _written(run: Path) -> dict[str, Any]:
    """What only the fit itself knew."""
    try:
        content = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(f"{run}: summary.json cannot be read ({error}). Was the fit stopped before its end?") from error
    return {key: content.get(key) for key in ("seconds", "epochs", "beta")}


def _identity(x: Tensor, fingerprint: str) -> str:
    # data that are binarised at evaluation are the same only if their draws are
    return f"{fingerprint}/{float(x.double().nansum()):.6f}"


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and its standard error over the data, in nats per datum; ``num_data`` N."""

    value: float
    standard_error: float
    num_data: int


def paired(first: Tensor | None, second: Tensor | None) -> Difference | None:
    r"""mean_n (b_n - a_n) with the standard error of that mean; None where one of them is not there.

    .. math:: \bar\delta = \frac1N \sum_n \delta_n, \qquad
              \operatorname{se} = \sqrt{\frac{1}{N (N - 1)} \sum_n (\delta_n - \bar\delta)^2}

    The difficulty of a datum is common to both and cancels, so that small differences are seen.

    >>> paired(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 3.5, 3.5])).value
    1.0
    """
    if first is None or second is None or len(first) != len(second):
        return None
    delta = (second - first).double()
    spread = float(delta.std()) / math.sqrt(len(delta)) if len(delta) > 1 else math.nan
    return Difference(float(delta.mean()), spread, len(delta))


@dataclass(frozen=True)
class Comparison:
    """``entries`` as they came in, the number of the ``baseline`` among them, and ``failures`` with their reasons."""

    entries: list[Entry]
    baseline: int
    failures: dict[str, str]

    def difference(self, entry: Entry, what: str) -> Difference | None:
        """The paired difference of ``entry`` to the baseline in "elbo" or "evidence"; None for other held-out data."""
        base = self.entries[self.baseline]
        if entry is base or entry.fingerprint != base.fingerprint:
            return None
        return paired(getattr(base, what), getattr(entry, what))

    def as_data(self) -> dict[str, Any]:
        """Everything as plain data, for compare.json."""
        runs = [
            {
                "name": entry.name,
                "changed": entry.changed,
                **entry.summary,
                "evidence": None if entry.evidence is None else float(entry.evidence.double().mean()),
                "difference": {what: _plain(self.difference(entry, what)) for what in ("elbo", "evidence")},
                "same_held_out_data": entry.fingerprint == self.entries[self.baseline].fingerprint,
            }
            for entry in self.entries
        ]
        return {"baseline": self.entries[self.baseline].name, "runs": runs, "failures": self.failures}


def compare(
    entries: Sequence[Entry], baseline: str | None = None, failures: Mapping[str, str] | None = None
) -> Comparison:
    """The entries beside each other; by default the differences are to the run with the largest ELBO.

    Raises :class:`~probvae.errors.ConfigError` for less than one run and for a baseline that is none of them.
    """
    if not entries:
        reasons = "".join(f" {name}: {reason}" for name, reason in (failures or {}).items())
        raise ConfigError(f"compare: expected at least one finished run, got none.{reasons} Give run folders.")
    names = [entry.name for entry in entries]
    if baseline is not None and baseline not in names:
        raise ConfigError(f"baseline: expected one of {', '.join(names)}, got {baseline!r}.")
    best = max(range(len(entries)), key=lambda number: float(entries[number].elbo.mean()))
    return Comparison(list(entries), best if baseline is None else names.index(baseline), dict(failures or {}))


def parse_sweep(texts: Sequence[str], keys: Mapping[str, str]) -> dict[str, list[Any]]:
    """``["prior=standard-normal,mixture"]`` as {recipe key: values}; ``keys`` are the short names of recipe keys.

    Raises :class:`~probvae.errors.ConfigError` for an axis that is not NAME=VALUE,...
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        key = keys.get(name.strip().replace("-", "_"), name.strip())
        found = [parse_value(value.strip()) for value in values.split(",") if value.strip()]
        if not equals or not found or "." not in key:
            raise ConfigError(f"--sweep {text!r}: expected NAME=VALUE,VALUE,..., as in prior=standard-normal,mixture.")
        axes[key] = found
    return axes


def combinations(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every choice of one value for each axis."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def run_sweep(
    recipe: Recipe,
    axes: Mapping[str, Sequence[Any]],
    out: Path,
    make: Callable[[str, Any], Recipe],
    progress: Callable[[str, int, int], None],
) -> tuple[list[Entry], dict[str, str]]:
    """Fit every combination into a folder of its own below ``out``; a fit that fails is noted, and the rest goes on.

    ``make`` turns a key and a value into a recipe; ``progress`` is told the name, the number and how many there are.
    Runs that are finished already are read, not fitted again.
    """
    entries, failures = [], {}
    chosen = list(combinations(axes))
    for number, changed in enumerate(chosen, start=1):
        name = "_".join(f"{_short(key)}-{value}" for key, value in changed.items())
        progress(name, number, len(chosen))
        folder = out / name.replace("/", "-")
        try:
            if not (folder / "summary.json").is_file():
                full = merge(recipe, *(make(key, value) for key, value in changed.items()))
                run_recipe(full, folder, progress=False, ledger=False)
            entries.append(read_entry(folder, changed))
        except ProbvaeError as error:
            failures[name] = str(error)
    return entries, failures


def _short(key: str) -> str:
    """``model.prior.name`` is "prior", ``model.likelihood.variance`` is "variance"."""
    return key.split(".")[-2 if key.endswith(".name") else -1]


def _plain(difference: Difference | None) -> dict[str, Any] | None:
    return None if difference is None else vars(difference)
