"""Several runs beside each other: their numbers, and paired differences on the same held-out data."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probvae.data import Dataset
from probvae.diagnostics.verdicts import mean_with_error
from probvae.errors import ConfigError, DataError, RunError
from probvae.experiments.recipe import Recipe, read_run_recipe
from probvae.experiments.recipe_data import binarized, conditioned, prepare_run_data, split_rows
from probvae.experiments.summary import NUM_SAMPLES, evaluate, for_other_data, ledger_of
from probvae.foundation.fit_options import flat
from probvae.foundation.seed import isolated_seed
from probvae.inference import bound, posterior_mean
from probvae.inference.evidence.log_evidence import Estimate
from probvae.inference.pair import load
from probvae.storage.run_folder import Run
from probvae.storage.untrusted import number_or_none, parse_object, read_run_text

# A latent is in use when its posterior mean varies by more than this over the data (Burda et al. 2016)
ACTIVE_THRESHOLD = 0.01
# These keys make other data of the same name; num_data, the seed and the share held out choose among the same data
_DATA_KEYS = ("source", "split", "scaling", "binarization", "exposure", "options")


@dataclass(frozen=True)
class Entry:
    """One run: its ``name``, recipe and numbers, per-datum ``elbo`` (N,) and ``evidence``, and what they are of.

    ``fingerprint`` identifies all the data before scaling, ``held_out`` the data that the numbers are of; ``measure``
    says what log p(x|z) is: a "density", a "probability", or "none" where it is no likelihood. ``log_volume`` (N,) is
    what the log density of a datum as it was scaled exceeds that of the datum in the user's units by.
    """

    name: str
    recipe: Recipe
    summary: dict[str, Any]
    elbo: Tensor
    evidence: Estimate | None
    fingerprint: str
    held_out: str
    data_dim: int
    measure: str
    log_volume: Tensor | None = None

    def mean_evidence(self) -> dict[str, Any] | None:
        """The mean log p(x) with its standard error over the data, its method and its kind."""
        if self.evidence is None:
            return None
        mean, num_data = mean_with_error(self.evidence.value), len(self.evidence.value)
        return {**mean, "method": self.evidence.method, "kind": self.evidence.kind, "num_data": num_data}


def read_entry(run: Path) -> Entry:
    """The numbers of a finished run, on its own held-out data; computed from its weights.

    A guide that is not amortised knows no held-out data: the best member of its family is taken for each.
    Raises :class:`~probvae.errors.RunError` for a folder that is no finished run, or whose data have changed since.
    """
    recipe = read_run_recipe(run)
    written = Run(run).read_json("summary.json")
    seed = recipe["training"]["seed"]
    loaded = prepare_run_data(run)
    rows = split_rows(loaded.data, recipe["data"]["held_out"], seed)[1]
    held_out = loaded.data.take(rows).in_memory()
    vae = conditioned(recipe, for_other_data(load(run), held_out, seed), held_out)
    x = binarized(held_out, seed)
    with isolated_seed(seed):
        values = bound(vae, x, NUM_SAMPLES)
    gap, gap_summary = ledger_of(vae, held_out, seed)
    summary = {
        **evaluate(vae, held_out, seed),
        "gap": gap_summary,
        "active_units": int((posterior_mean(vae, x).var(0, correction=0) > ACTIVE_THRESHOLD).sum()),
        "latent_dim": vae.model.latent_dim,
        **{key: number_or_none(written.get(key)) for key in ("epochs", "beta")},
        "seconds": _fit_seconds(run, written),
    }
    evidence = None if gap is None else gap.truth
    # data that are binarised are the same only if their draws are
    drawn = f"/{float(x.double().nansum()):.6f}" if held_out.binarization != "none" else ""
    identity = f"{loaded.raw.data.take(rows).in_memory().fingerprint()}/{held_out.binarization}{drawn}"
    return Entry(
        run.name,
        recipe,
        summary,
        values.elbo,
        evidence,
        f"{loaded.raw.data.fingerprint()}/{held_out.scaling}/{held_out.binarization}",
        identity,
        loaded.data.data_dim,
        vae.model.likelihood.measure,
        _log_volume(held_out, x),
    )


def _log_volume(data: Dataset, x: Tensor) -> Tensor:
    """log |dx'/dx| (N,) of the scaling of the observed entries of ``x`` (N, D), with its sign turned."""
    if data.binarization != "none":
        return x.new_zeros(len(x), dtype=torch.float64)
    logs = torch.as_tensor(data.transform.divisor).double().abs().log().expand(x.shape[1])
    return torch.where(x.isnan(), 0.0, logs).sum(1)


def read_runs(runs: Sequence[Path], progress: Callable[[str, int, int], None]) -> list[Entry]:
    """:func:`read_entry` of each; folders of one name are called by their paths."""
    names = [Path(os.path.normpath(run.absolute())).name for run in runs]  # resolve() would follow links in circles
    entries = []
    for number, (run, name) in enumerate(zip(runs, names, strict=True), start=1):
        progress(str(run), number, len(runs))
        entries.append(replace(read_entry(run), name=name if names.count(name) == 1 else str(run)))
    return entries


def _fit_seconds(run: Path, summary: Mapping[str, Any]) -> float | None:
    """The training alone: the time in the summary has an evaluation in it that not every run has had."""
    if "fit_seconds" in summary:
        return number_or_none(summary["fit_seconds"])
    try:  # older runs have it there
        lines = read_run_text(run, "metrics.jsonl").splitlines()
        return number_or_none(parse_object(lines[-1], "metrics.jsonl").get("seconds"))
    except (RunError, IndexError):
        return None


@dataclass(frozen=True)
class Difference:
    """A mean difference and its standard error over the data, in nats per datum; ``num_data`` N.

    ``paired``: datum by datum. Otherwise between the means over different held-out data, with a larger error.
    ``standard_error`` is None for one datum.
    """

    value: float
    standard_error: float | None
    num_data: int
    paired: bool


def paired(first: Tensor, second: Tensor) -> Difference:
    r"""mean_n (b_n - a_n) with the standard error of that mean; ``first`` a and ``second`` b are (N,) or longer.

    Only the first N data, which both have, count.

    .. math:: \bar\delta = \frac1N \sum_n \delta_n, \qquad
              \operatorname{se} = \sqrt{\frac{1}{N (N - 1)} \sum_n (\delta_n - \bar\delta)^2}

    The difficulty of a datum is common to both and cancels, so that small differences are seen.

    >>> paired(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 3.5, 3.5])).value
    1.0
    """
    num_data = min(len(first), len(second))
    mean = mean_with_error(second[:num_data].double() - first[:num_data].double())
    return Difference(mean["value"] or 0.0, mean["standard_error"], num_data, paired=True)


def unpaired(first: Tensor, second: Tensor) -> Difference:
    r"""mean b - mean a of different data, ``first`` a (N,) and ``second`` b (M,); the squared standard errors add.

    >>> unpaired(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 3.5])).value
    0.75
    """
    a, b = mean_with_error(first), mean_with_error(second)
    errors = a["standard_error"], b["standard_error"]
    error = None if None in errors else math.hypot(*(e for e in errors if e is not None))
    return Difference((b["value"] or 0.0) - (a["value"] or 0.0), error, min(len(first), len(second)), paired=False)


@dataclass(frozen=True)
class Comparison:
    """``entries`` as they came in, a ``label`` for each, the ``baseline``'s number, ``failures`` with their reasons.

    ``changed`` has for each entry the recipe's keys that are not the same in all, with their values there.
    """

    entries: list[Entry]
    changed: list[dict[str, Any]]
    labels: list[str]
    baseline: int
    failures: dict[str, str]

    def difference(self, entry: Entry, what: str) -> Difference | None:
        """The difference of ``entry`` to the baseline in "elbo" or "evidence".

        None for the baseline itself, where a number is not there, and between densities and probabilities.
        """
        base = self.entries[self.baseline]
        values = [values_of(base, what), values_of(entry, what)]
        if entry is base or entry.measure != base.measure or "none" in (entry.measure, base.measure):
            return None
        first, second = values
        if first is None or second is None:
            return None
        return paired(first, second) if entry.held_out == base.held_out else unpaired(first, second)

    def as_data(self) -> dict[str, Any]:
        """Everything as plain data, for compare.json."""
        base = self.entries[self.baseline]
        runs = [
            {
                "name": entry.name,
                "label": label,
                "changed": changed,
                **entry.summary,
                "evidence": entry.mean_evidence(),
                "measure": entry.measure,
                "difference": {what: _plain(self.difference(entry, what)) for what in ("elbo", "evidence")},
                "same_held_out_data": entry.held_out == base.held_out,
            }
            for entry, label, changed in zip(self.entries, self.labels, self.changed, strict=True)
        ]
        return {"baseline": base.name, "runs": runs, "failures": self.failures}


def values_of(entry: Entry, what: str) -> Tensor | None:
    """The "elbo" or "evidence" (N,) of an entry, or None; densities are in the units of the user.

    Each run is scaled by its own training rows.
    """
    values = entry.elbo if what == "elbo" else None if entry.evidence is None else entry.evidence.value
    if values is None or entry.log_volume is None or entry.measure != "density":
        return values
    return values.double() - entry.log_volume[: len(values)]


def compare(
    entries: Sequence[Entry], baseline: str | None = None, failures: Mapping[str, str] | None = None
) -> Comparison:
    """The entries beside each other; by default the differences are to the run with the largest ELBO.

    Raises :class:`~probvae.errors.ConfigError` for less than one run, names that are not unique and a baseline that is
    none of them, and :class:`~probvae.errors.DataError` for runs of different data.
    """
    if not entries:
        reasons = "".join(f" {name}: {reason}" for name, reason in (failures or {}).items())
        raise ConfigError(f"compare: expected at least one finished run, got none.{reasons} Give run folders.")
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise ConfigError(f"compare: expected every run once, got {', '.join(names)}. Give each a name of its own.")
    if baseline is not None and baseline not in names:
        raise ConfigError(f"baseline: expected one of {', '.join(names)}, got {baseline!r}.")
    for entry in entries[1:]:
        _check_same_data(entries[0], entry)
    changed = differing([entry.recipe for entry in entries])
    labels = [label_of(keys) or name for keys, name in zip(changed, names, strict=True)]
    if len(set(labels)) < len(labels):
        labels = names
    best = names.index(baseline) if baseline is not None else _best(entries)
    return Comparison(list(entries), changed, labels, best, dict(failures or {}))


def _best(entries: Sequence[Entry]) -> int:
    """The largest ELBO; a number that is no bound is not the best one."""
    return max(range(len(entries)), key=lambda n: (entries[n].measure != "none", _mean(entries[n])))


def _mean(entry: Entry) -> float:
    values = values_of(entry, "elbo")
    assert values is not None
    return float(values.mean())


def _check_same_data(first: Entry, other: Entry) -> None:
    """log p(x) of other data is another question, not a better or worse answer."""
    if first.fingerprint == other.fingerprint:
        return
    fix = "Compare runs of the same data."
    if first.data_dim != other.data_dim:
        raise DataError(f"{other.name}: has {other.data_dim} columns, {first.name} {first.data_dim}. {fix}")
    ours, theirs = first.recipe["data"], other.recipe["data"]
    for key in _DATA_KEYS:
        if ours.get(key) != theirs.get(key):
            raise DataError(f"{other.name}: has data.{key}={theirs.get(key)!r}, {first.name} {ours.get(key)!r}. {fix}")
    # with a seed of its own, a set that is drawn is another one; binarisation draws from the same grey values
    if ours.get("num_data") == theirs.get("num_data") and ours["binarization"] != "fixed":
        raise DataError(f"{other.name}: its data have other values than those of {first.name}. {fix}")


def differing(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    """For each recipe the keys that are not the same in all of them, with the values there (None: not there).

    >>> differing([{"model": {"prior": {"name": "a"}, "latent_dim": 2}}, {"model": {"prior": {"name": "b"}}}])
    [{'model.prior.name': 'a', 'model.latent_dim': 2}, {'model.prior.name': 'b', 'model.latent_dim': None}]
    """
    tables = [dict(flat(recipe)) for recipe in recipes]
    keys = list(dict.fromkeys(key for recipe in tables for key in recipe))
    changed = [key for key in keys if any(recipe.get(key) != tables[0].get(key) for recipe in tables)]
    return [{key: recipe.get(key) for key in changed} for recipe in tables]


def label_of(changed: Mapping[str, Any]) -> str:
    """``mixture, variance=0.1``: a component by its name alone."""
    words = [
        str(value) if key.endswith(".name") else f"{short_key(key)}={value}"
        for key, value in changed.items()
        if value is not None
    ]
    return ", ".join(dict.fromkeys(words))  # hidden layers are in the decoder and in the encoder


def short_key(key: str) -> str:
    """``model.prior.name`` is "prior", ``model.likelihood.variance`` is "variance"."""
    return key.split(".")[-2 if key.endswith(".name") else -1]


def _plain(difference: Difference | None) -> dict[str, Any] | None:
    return None if difference is None else asdict(difference)
