"""Recipes: whatever is accepted can be written down and read back, and merging loses nothing unawares."""

import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probvae.errors import ConfigError
from probvae.experiments.recipe import (
    COMPONENTS,
    DEFAULT,
    KEYS,
    Recipe,
    check_recipe,
    merge,
    parse_setting,
    parse_value,
    read_recipe,
    resolve,
    to_toml,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.one_of(INTEGERS, st.floats(allow_nan=False))
PLAIN = st.one_of(st.booleans(), NUMBERS, TEXT)
# what an option of a component may be, as far as a recipe can know
OPTION = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
COMPONENT = st.one_of(
    TEXT, st.builds(lambda name, options: {**options, "name": name}, TEXT, st.dictionaries(TEXT, OPTION, max_size=3))
)
OF_TYPE: dict[type, st.SearchStrategy[Any]] = {
    int: INTEGERS,
    float: st.floats(allow_nan=False),
    str: TEXT,
    bool: st.booleans(),
    list: st.lists(TEXT, max_size=3),
    dict: st.dictionaries(TEXT, PLAIN, max_size=3),
}


def _table(name: str) -> st.SearchStrategy[dict[str, Any]]:
    entries = {key: st.one_of([OF_TYPE[kind] for kind in kinds]) for key, kinds in KEYS[name].items()}
    if name == "training":
        entries["seed"] = st.integers(0, 2**63 - 1)
    return st.fixed_dictionaries({}, optional={**entries, **dict.fromkeys(COMPONENTS.get(name, ()), COMPONENT)})


RECIPES = st.fixed_dictionaries({}, optional={name: _table(name) for name in KEYS}).map(check_recipe)
QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@QUICK
@given(recipe=RECIPES)
def test_what_is_accepted_is_read_back(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8", newline="")
    assert read_recipe(tmp_path / "recipe.toml") == recipe


@QUICK
@given(first=RECIPES, second=RECIPES)
def test_merging(first: Recipe, second: Recipe) -> None:
    before = deepcopy((first, second))
    merged = merge(first, second)
    assert (first, second) == before
    assert merge(merged, second) == merged
    assert merge(first, {}) == merge({}, first) == merge(first, first) == first
    for table, content in second.items():
        for key, value in content.items():
            # the right one holds; of a component with the same name the left one's other options stay
            found = merged[table][key]
            assert found == (value if not isinstance(value, dict) else {**found, **value})
            if isinstance(value, dict) and value.get("name") != first.get(table, {}).get(key, {}).get("name"):
                assert found == value
    assert all(check_recipe(recipe) == recipe for recipe in (merged, resolve([merged])))


@QUICK
@given(recipe=RECIPES)
def test_settings_say_the_same_as_a_file(recipe: Recipe) -> None:
    for table in set(recipe) - set(COMPONENTS):
        for key, value in recipe[table].items():
            if isinstance(value, int | float):
                text = str(value).lower()
                assert parse_setting(f"{table}.{key}={text}") == check_recipe(
                    {table: {key: tomllib.loads(f"x={text}")["x"]}}
                )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("[8, 8]", [8, 8]),
        ("true", True),
        ("learned", "learned"),
        ("1\n[model]\nlatent_dim = 5", "1\n[model]\nlatent_dim = 5"),
        ("1\nother = 2", "1\nother = 2"),
        ("[" * 5000, "[" * 5000),
        ("1" * 5000, "1" * 5000),
        ("", ""),
    ],
)
def test_values_of_settings(text: str, value: object) -> None:
    assert parse_value(text) == value


BAD: dict[str, tuple[str | bytes, str]] = {
    "brackets": ("a = " + "[" * 5000, "not TOML"),
    "depth": ("[model.prior" + ".a" * 40 + "]\nb = 1", "at most 20 levels"),
    "digits": ("[training]\nepochs = " + "9" * 5000, "not TOML"),
    "64 bits": ("[training]\nepochs = 9223372036854775808", "integers of 64 bits"),
    "in an option": ("[model.prior]\nscale = [[9223372036854775808]]", "integers of 64 bits"),
    "seed": ("[training]\nseed = -1", "training.seed: expected an integer >= 0, got -1"),
    "utf-16": ("[training]".encode("utf-16"), "Save it in UTF-8"),
    "large": ("#" * (5 * 2**20), "at most 4 MB"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / "r.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=f"r.toml: .*{message}"):
        read_recipe(tmp_path / "r.toml")


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="expected a file, got a pipe or device"):
        read_recipe(tmp_path / "endless.toml")
    with pytest.raises(ConfigError, match="expected a file, got a folder"):
        read_recipe(tmp_path)
    with pytest.raises(ConfigError, match="there is no such file"):
        read_recipe(tmp_path / "missing.toml")


def test_names_that_toml_cannot_hold() -> None:
    with pytest.raises(ConfigError, match="expected names and text in UTF-8"):
        check_recipe({"data": {"source": "\udcff.npy"}})


def test_default_is_whole() -> None:
    assert check_recipe(DEFAULT) == DEFAULT == resolve([])
