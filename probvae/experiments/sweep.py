"""A sweep: a recipe fitted with every combination of some options, one folder each."""

import itertools
import re
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probvae.errors import ConfigError, ProbvaeError, RunError
from probvae.experiments.compare import Entry, differing, read_entry, short_key
from probvae.experiments.recipe import Recipe, merge, parse_value, read_run_recipe, to_toml
from probvae.experiments.run import resume_run, run_recipe


def parse_sweep(texts: Sequence[str], keys: Mapping[str, str]) -> dict[str, list[Any]]:
    """``["prior=standard-normal,mixture"]`` as {recipe key: values}; ``keys`` are the short names of recipe keys.

    A value may be a list: ``model.decoder.channels=[8,16],[32,64]``.
    Raises :class:`~probvae.errors.ConfigError` for an axis that is not NAME=VALUE,..., or is there twice.
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        key = keys.get(name.strip().replace("-", "_"), name.strip())
        found = [parse_value(value.strip()) for value in re.split(r",(?![^\[]*\])", values) if value.strip()]
        if not equals or not found or ("." not in key and key not in keys):
            raise ConfigError(
                f"sweep {text!r}: expected NAME=VALUE,VALUE,..., as in 'prior=standard-normal,mixture', with NAME an "
                "option of `probvae fit` or a key of a recipe."
            )
        if key in axes:
            raise ConfigError(f"sweep {text!r}: {name.strip()} is there twice. Give all its values at once.")
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
    Runs that are finished already are read, not fitted again, if they are of the same recipe.
    Raises :class:`~probvae.errors.ConfigError` before the first fit for a key or a value that no recipe has.
    """
    chosen = [(_folder_name(changed), changed) for changed in combinations(axes)]
    full = {name: merge(recipe, *(make(key, value) for key, value in changed.items())) for name, changed in chosen}
    entries, failures = [], {}
    for number, name in enumerate(full, start=1):
        progress(name, number, len(full))
        try:
            with _warnings_of(name):
                entries.append(_fit_or_read(full[name], out / name))
        except Exception as error:  # a sweep of hours goes on, whatever one of its parts does
            failures[name] = str(error) if isinstance(error, ProbvaeError) else f"{type(error).__name__}: {error}"
    return entries, failures


def _fit_or_read(recipe: Recipe, folder: Path) -> Entry:
    if not (folder / "config.toml").is_file():
        run_recipe(recipe, folder, progress=False, ledger=False)
        return read_entry(folder)
    there, asked = differing([read_run_recipe(folder), _as_stored(recipe)])
    # which column is of which type was found in the data, where the recipe did not say it
    keys = [key for key in there if key != "model.likelihood.columns" or asked[key] is not None]
    if keys:
        raise RunError(
            f"{folder}: holds a run with {keys[0]}={there[keys[0]]!r}, and {asked[keys[0]]!r} is asked for. "
            "Choose another folder, or remove it."
        )
    if not (folder / "summary.json").is_file():
        resume_run(folder, progress=False, ledger=False)
    return read_entry(folder)


def _as_stored(recipe: Recipe) -> Recipe:
    return tomllib.loads(to_toml(recipe))


@contextmanager
def _warnings_of(name: str) -> Iterator[None]:
    """Warnings from inside say which run they are of."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        for warning in caught:
            warnings.warn(f"{name}: {warning.message}", warning.category, stacklevel=3)


def _folder_name(changed: Mapping[str, Any]) -> str:
    name = "_".join(f"{short_key(key)}-{value}" for key, value in changed.items())
    return re.sub(r"[^\w.+-]+", "-", name).strip("-")
