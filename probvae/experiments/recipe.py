"""Recipes: what to fit, as TOML with the tables [model] [inference] [training] [data].

Several recipes merge from left to right. A component is a name, or a table with a name and options::

    [model]
    latent_dim = 2
    prior = "standard-normal"
    likelihood = { name = "gaussian", variance = 0.25 }

A component that gets another name loses the options of the old one; an unknown key is an error.
"""

import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from probvae.errors import ConfigError, RunError, unknown_name
from probvae.foundation.fit_options import OPTIONS
from probvae.storage.untrusted import check_file, check_run_format, read_run_text

Recipe = dict[str, dict[str, Any]]
# The options of a fit that stand in the table [training]; the others have a place elsewhere
TRAINING = {name: option for name, option in OPTIONS.items() if option.table == "training"}

# The default: Rocca's VAE on the digits.
DEFAULT: Recipe = {
    "model": {
        "latent_dim": 2,
        "prior": {"name": "standard-normal"},
        "decoder": {"name": "mlp"},
        "likelihood": {"name": "gaussian", "variance": "learned"},
    },
    "inference": {
        "guide": {"name": "diagonal"},
        "encoder": {"name": "mlp"},
        "objective": {"name": "elbo"},
    },
    "training": {name: option.recipe_default for name, option in TRAINING.items() if option.recipe_default is not None},
    "data": {"source": "digits", "held_out": 0.2, "binarization": "none"},
}

# The components, and the type of every other key.
COMPONENTS = {"model": ("prior", "decoder", "likelihood"), "inference": ("guide", "encoder", "objective")}
_NUMBER = (int, float)
KEYS: dict[str, dict[str, tuple[type, ...]]] = {
    "model": {"latent_dim": (int,), "condition": (str, list), "missing": (str,)},
    "inference": {},
    "training": {name: option.types for name, option in TRAINING.items()},
    "data": {
        "source": (str,),
        "data_dir": (str,),
        "split": (str,),
        "scaling": (str,),
        "binarization": (str,),
        "num_data": (int,),
        "labels": (str,),
        "exposure": (str,),
        "held_out": _NUMBER,
        "in_memory_limit": _NUMBER,
        "options": (dict,),
    },
}
_LARGEST_FILE = 4 * 2**20  # bytes: a table of ten thousand columns has its types listed in less
_DEEPEST = 20
# They stand in the order of the file: one that was cut short lacks the last ones
_ALWAYS_WRITTEN = (("training", "seed"), ("data", "source"), ("data", "held_out"))


def read_recipe(path: str | Path) -> Recipe:
    """One recipe from a TOML file, checked. Raises :class:`~probvae.errors.ConfigError` with file and reason."""
    path = Path(path)
    try:
        text = _content(path).decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"recipe {path}: there is no such file. The project's own are in models/ and inference/."
        ) from error
    except OSError as error:
        raise ConfigError(f"recipe {path}: cannot be read ({error.strerror}). Give a TOML file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe {path}: not TOML ({error}). Save it in UTF-8.") from error
    return parse_recipe(text, path)


def parse_recipe(text: str, path: Path) -> Recipe:
    """The recipe in ``text``, which stands in the file ``path``, checked as :func:`read_recipe` does."""
    try:
        recipe = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits and endless brackets among them
        raise ConfigError(f"recipe {path}: not TOML ({error}).") from error
    try:
        return check_recipe(recipe)
    except ConfigError as error:
        raise type(error)(f"recipe {path}: {error}") from error


def check_recipe(recipe: Mapping[str, Any]) -> Recipe:
    """The recipe with every component as a table; an unknown key or a wrong type is an error."""
    checked: Recipe = {}
    _check_values(recipe)
    for table, content in recipe.items():
        if table not in KEYS:
            raise unknown_name("table", table, KEYS)
        if not isinstance(content, Mapping):
            raise ConfigError(f"{table}: expected a table, got {content!r}. Write [{table}].")
        checked[table] = {key: _check_entry(table, key, value) for key, value in content.items()}
    return checked


def merge(*recipes: Recipe) -> Recipe:
    """The recipes on top of each other, the right one above."""
    merged: Recipe = {}
    for recipe in recipes:
        for table, content in recipe.items():
            target = merged.setdefault(table, {})
            for key, value in content.items():
                target[key] = _merge_entry(target.get(key), deepcopy(value))
    return merged


def parse_setting(text: str) -> Recipe:
    """``model.prior.num_components=5`` as a recipe; the value is TOML, or else a plain string."""
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or len(path) < 2 or not all(path):
        raise ConfigError(f"setting {text!r}: expected table.key=value, for example training.epochs=20.")
    entry: Any = parse_value(value.strip())
    for name in reversed(path[1:]):
        entry = {name: entry}
    return check_recipe({path[0]: entry})


def parse_value(text: str) -> Any:
    """A TOML value, or the text itself where it is none (or more than one)."""
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return found["value"] if found.keys() == {"value"} else text


def resolve(recipes: Sequence[Recipe]) -> Recipe:
    """The default with the recipes merged on top; what results is whole."""
    recipe = merge(DEFAULT, *recipes)
    for table, roles in COMPONENTS.items():
        for role in roles:
            if "name" not in recipe[table][role]:
                raise ConfigError(f"{table}.{role}: expected a name, got only options.")
    return recipe


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML, which :func:`read_recipe` reads back."""
    import tomlkit

    return tomlkit.dumps(recipe)


def read_run_recipe(run: Path) -> Recipe:
    """The resolved recipe of a run folder."""
    check_run_format(run)
    recipe = parse_recipe(read_run_text(run, "config.toml"), run / "config.toml")
    # defaults in the place of what a fit has always written would be another run
    lost = [f"{table}.{key}" for table, key in _ALWAYS_WRITTEN if key not in recipe.get(table, {})]
    if lost:
        raise RunError(f"{run}: config.toml is not whole, {', '.join(lost)} is missing. Restore it, or fit again.")
    return resolve([recipe])


def _content(path: Path) -> bytes:
    check_file(path, "Give a TOML file.", _LARGEST_FILE, f"recipe {path}", ConfigError)
    return path.read_bytes()


def _check_values(value: Any, depth: int = 0) -> None:
    """Raise for what TOML, in which a run writes its recipe down, does not hold: in Python it may go unnoticed."""
    if depth > _DEEPEST:
        raise ConfigError(f"recipe: expected at most {_DEEPEST} levels of tables and lists. Write it flatter.")
    if isinstance(value, Mapping | list):
        for inner in value.items() if isinstance(value, Mapping) else value:
            for part in inner if isinstance(inner, tuple) else (inner,):
                _check_values(part, depth + 1)
    elif isinstance(value, str) and not value.isascii():
        _check_text(value)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError(f"recipe: expected integers of 64 bits, got one of {value.bit_length()}. Take a smaller one.")


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"recipe: expected names and text in UTF-8, got {text!r}. Rename what is called so."
        ) from error


def _check_entry(table: str, key: str, value: Any) -> Any:
    components, keys = COMPONENTS.get(table, ()), KEYS[table]
    if key in components:
        return _check_component(table, key, value)
    if key not in keys:
        raise unknown_name("key", f"{table}.{key}", [f"{table}.{known}" for known in (*components, *keys)])
    if not isinstance(value, keys[key]) or (isinstance(value, bool) and bool not in keys[key]):
        expected = " or ".join(kind.__name__ for kind in keys[key])
        raise ConfigError(f"{table}.{key}: expected {expected}, got {value!r}.")
    if key == "seed" and isinstance(value, int) and value < 0:
        raise ConfigError(f"{table}.{key}: expected an integer >= 0, got {value}.")
    return value


def _check_component(table: str, role: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name", ""), str):
        raise ConfigError(f"{table}.{role}: expected a name, or a table with a name and options, got {value!r}.")
    return dict(value)


def _merge_entry(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    if "name" in new and new["name"] != old.get("name"):
        return new
    return {**old, **new}
