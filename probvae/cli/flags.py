"""Messages of the library in the words of the command line: ``missing='mask'`` becomes ``--missing mask``.

The library's errors name its arguments, because most readers call it from Python. A reader of the command line has
never seen an argument. So every message is rewritten at this edge, from one table: the options of the command that
runs, those of `probvae fit`, and the keys of a recipe that only --set can reach.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import click

# Arguments of the library that commands call otherwise, the likeliest first
_OTHER_NAMES = {
    "x": ("data",),
    "source": ("data",),
    "y": ("given", "condition"),
    "covariates": ("condition",),
    "vae": ("run",),
    "setting": ("settings",),
    "num_samples": ("num_draws", "draws"),
}
# No argument of the library is called so, and the message may begin with the path of a folder that is
_FOLDER = "run"
# Options of components that a recipe does not have, because they follow from the data and from other components
_FOUND = {"data_dim", "encoder", "guide", "image_shape", "latent_dim", "model", "num_beside", "num_covariates"} | {
    "num_data", "num_features", "num_outputs", "self"
}  # fmt: skip
_ROLES = {
    "probvae.models": {"Prior": "model.prior", "Likelihood": "model.likelihood", "Decoder": "model.decoder"},
    "probvae.inference": {
        "Encoder": "inference.encoder",
        "Guide": "inference.guide",
        "Objective": "inference.objective",
    },
}
_VALUE = r"""'[^']*'|\.\.\.|"[^"]*"|\([^()]*\)|\[[^\[\]]*\]|[^\s,;:()'"]*[^\s,;:.?()'"]"""
# Words before an assignment that the reader is to make, not one that the message tells of
_ADVICE = r"\b(?:[Uu]se|[Aa]dd|[Tt]ake|[Ww]ith|or) "
# Names that stand in quotes, in a path, behind a dot or in another name are no arguments
_BEFORE, _AFTER = r"""(?<![\w.'"/=-])""", r"""(?![\w=(/-]|\.\w|['"])"""


def in_flags(message: str, command: click.Command | None = None) -> str:
    """``message`` with the arguments that ``command`` (by default the one that runs) has options for as options.

    >>> from probvae.cli.fit_command import command
    >>> in_flags("batch_size: expected at most 108. Use batch_size=108, or fit with missing='mask'.", command)
    '--batch-size: expected at most 108. Use --batch-size 108, or fit with --missing mask.'
    """
    if command is None:
        context = click.get_current_context(silent=True)
        command = context.command if context else None
    flags = dict(_parameters(command))
    keys = {name: key for name, key in _settings().items() if name not in flags}
    names = "|".join(sorted({*flags, *keys}, key=len, reverse=True))

    def called(name: str) -> str:
        return option_text(flags[name]) if name in flags else keys[name]

    def assigned(match: re.Match[str]) -> str:
        advice, name, value = match.groups(default="")
        if name in flags:
            return advice + _with_value(flags[name], value)
        return f"{advice}{'--set ' if advice else ''}{keys[name]}={_plain(value)}"

    message = re.sub(rf"({_ADVICE})?{_BEFORE}({names})=({_VALUE})", assigned, message)
    message = re.sub(rf"^({names})(?=( '[^']*')?: )", lambda match: called(match[1]), message)
    message = re.sub(r"^([a-z_]+(?:\.[a-z_]+)+)(?=: )", lambda match: _flag_of_key(match[1]), message)
    long_names = "|".join(name for name in names.split("|") if "_" in name)
    return re.sub(rf"{_BEFORE}({long_names}){_AFTER}", lambda match: called(match[1]), message)


def option_text(parameter: click.Parameter) -> str:
    """``--batch-size`` for an option, ``DATA`` for an argument that is known by its place.

    >>> option_text(click.Option(["-n", "--num-samples"])), option_text(click.Argument(["run"]))
    ('--num-samples', 'RUN')
    """
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    word = parameter.human_readable_name.strip("[]")
    return word if word.isalpha() else str(parameter.name)


def _flag_of_key(key: str) -> str:
    """The option of `probvae fit` that sets this key of a recipe, or the key itself where only --set does."""
    fit = import_module("probvae.cli.fit_command")
    name = {key: name for name, key in fit.KEYS.items()}.get(key)
    return next((option_text(parameter) for parameter in fit.command.params if parameter.name == name), key)


def _parameters(command: click.Command | None) -> Iterator[tuple[str, click.Parameter]]:
    """Options by the library's names, those of ``command`` last, so that they count."""
    fit = import_module("probvae.cli.fit_command").command
    own = {parameter.name: parameter for parameter in [*fit.params, *(command.params if command else ())]}
    for argument, names in _OTHER_NAMES.items():
        found = [own[name] for name in names if name in own]
        if found:
            yield argument, found[0]
    for name, parameter in own.items():
        if name is not None and name != _FOLDER:
            yield name, parameter


def _settings() -> dict[str, str]:
    """Keys of a recipe by the last word, where one role only has it. Components count once they are imported."""
    from probvae.experiments.recipe import KEYS

    keys: dict[str, set[str]] = {}
    for table, names in KEYS.items():
        for name in names:
            keys.setdefault(name, set()).add(f"{table}.{name}")
    for room, roles in _ROLES.items():
        for family, role in roles.items():
            for name in _component_options(room, family) - _FOUND:
                keys.setdefault(name, set()).add(f"{role}.{name}")
    return {name: found.pop() for name, found in keys.items() if len(found) == 1}


def _component_options(room: str, family: str) -> set[str]:
    # An error that names a component's option comes from a component, and then its room has been imported
    if not hasattr(sys.modules.get(room), family):
        return set()
    from probvae.foundation.registry import option_names

    components: Any = getattr(sys.modules[room], family).registry.values()
    return {name for component in components for name in option_names(component)}


def _with_value(parameter: click.Parameter, value: str) -> str:
    name, text = option_text(parameter), _plain(value)
    if isinstance(parameter, click.Option) and parameter.is_flag:
        off = parameter.secondary_opts[0] if parameter.secondary_opts else f"no {name}"
        return off if text in ("False", "None") else name
    if isinstance(parameter.type, click.Choice):
        text = {"True": "yes", "False": "no"}.get(text, text)
    return f"{name} {text if text == '...' else shlex.quote(text)}"


def _plain(value: str) -> str:
    """A value of Python's as it is typed: 'mask' is mask, (64, 32) is 64,32.

    >>> _plain("'mask'"), _plain("(64, 32)"), _plain("(8,)"), _plain("0.5")
    ('mask', '64,32', '8', '0.5')
    """
    if value[0] in "'\"":
        return value[1:-1]
    return value[1:-1].replace(" ", "").rstrip(",") if value[0] in "([" else value
