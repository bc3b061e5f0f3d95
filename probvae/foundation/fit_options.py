"""The options of a fit. Each is written once: its name, default, check and line of help are one field of FitOptions.

The signature and the docstring of :func:`~probvae.fit`, the keys of a recipe's table [training], the flags of
``probvae fit`` and the options that a checkpoint remembers are read from the fields. A new option is one field here,
and the line of the fit that uses it. The table stands at the bottom of the house, because the command line reads it for
``--help``, before torch is there.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from types import UnionType
from typing import Any, TypeVar, get_args

from probvae.errors import ArgumentError, UnknownOptionError, unknown_name
from probvae.foundation.checks import check_count, check_positive

Function = TypeVar("Function", bound=Callable[..., Any])
Check = Callable[[Any, str], None]

SCHEDULES = {
    "constant": "the same learning rate in every step",
    "cosine": "from the learning rate down to zero along half a cosine",
}
# The line of a docstring that the options' description takes the place of
_PLACE = "{options}"


@dataclass(frozen=True)
class Option:
    """One option: what its field says, for whoever reads options and not their values.

    ``types`` are what a recipe and the command line allow. ``words`` are the values that the command line spells
    in another way, by word. ``recipe_default`` is the default of a recipe, in which the option is a key of ``table``. A
    fit that is resumed has to have the same value unless ``may_change``.
    """

    name: str
    default: Any
    help: str
    check: Check
    types: tuple[type, ...]
    words: Mapping[str, Any]
    recipe_default: Any
    table: str
    may_change: bool

    @property
    def flag(self) -> str:
        """The option on the command line, ``--batch-size``."""
        return "--" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        """The option in a recipe, ``training.batch_size``."""
        return f"{self.table}.{self.name}"


def count(least: int) -> Check:
    """The check of an integer of at least ``least``."""
    return lambda value, name: check_count(value, name, least)


def one_of(*names: str) -> Check:
    """The check of a name that has to be one of ``names``."""

    def check(value: Any, name: str) -> None:
        if value not in names:
            raise unknown_name(name, value, names)

    return check


def _check_validation(value: Any, name: str) -> None:
    if isinstance(value, int | float | str) and (isinstance(value, str) or not 0 < value < 1):
        raise ArgumentError(f"{name}: expected a share between 0 and 1, or data (M, D), got {value!r}.")


def check_compile(value: Any, name: str = "compile") -> None:
    """Raise unless ``value`` is one of the ways that a fit's steps can take."""
    if not isinstance(value, bool) and value not in ("auto", "graph"):
        raise ArgumentError(f"{name}: expected 'auto', 'graph', True or False, got {value!r}. Use 'auto'.")


def _check_device(value: Any, name: str) -> None:
    if value == "auto":
        return
    import torch

    try:
        torch.zeros(1, device=value).item()  # "meta" is a device too, without numbers
    except Exception as error:  # each device that was not built in says so in a way of its own
        raise ArgumentError(f"{name}: {value!r} is not available here. Use {name}='cpu'.") from error


def option(default: Any, check: Check, help: str, **more: Any) -> Any:
    """A field of :class:`FitOptions`; ``more`` are attributes of :class:`Option` that are not as for most options."""
    return field(default=default, metadata={"check": check, "help": help, **more})


@dataclass(frozen=True)
class FitOptions:
    """How :func:`~probvae.fit` trains.

    Raises :class:`~probvae.errors.ArgumentError` for a value that is not allowed.

    >>> FitOptions(epochs=3).batch_size
    128
    """

    epochs: int = option(150, count(1), "Passes over the data.")
    batch_size: int = option(128, count(1), "Rows in one step.")
    learning_rate: float = option(2e-3, check_positive, "Adam's step size.")
    schedule: str = option(
        "cosine", one_of(*SCHEDULES), "constant, or cosine: the step size falls to zero along half a cosine."
    )
    gradient_clip: float | None = option(None, check_positive, "The largest norm of the gradient of one step.")
    validation: Any = option(  # noqa: RUF009  # a field like the others
        None,
        _check_validation,
        "The share of the data to set aside, to which the bound is reported after every epoch.",
        types=(int, float),
        recipe_default=0.1,
        may_change=True,
    )
    patience: int | None = option(
        None, count(1), "Stop after so many epochs without a better validation ELBO, and restore the best weights."
    )
    kl_warmup: int = option(0, count(0), "Epochs over which the KL's weight rises to its value.")
    max_skipped_steps: int = option(
        10, count(0), "Steps in a row that may be skipped because loss or gradient is not finite."
    )
    binarization: str = option(
        "none", one_of("none", "fresh"), "none, or fresh: draw x ~ Bernoulli(x) anew at every use.", table="data"
    )
    seed: int = option(0, count(0), "Seed of everything random.")
    compile: str | bool = option(
        "auto",
        check_compile,
        "Steps without Pyro's handlers: traced, or compiled; auto where it pays.",
        words={"auto": "auto", "yes": True, "graph": "graph", "no": False},
        may_change=True,
    )
    device: str = option("auto", _check_device, "auto (CUDA where there is one), cpu, cuda, ...", may_change=True)
    checkpoint_seconds: float = option(
        300.0, check_positive, "Save within an epoch that takes longer than this.", may_change=True
    )

    def __post_init__(self) -> None:
        for each in OPTIONS.values():
            value = getattr(self, each.name)
            if value is not None or each.default is not None:
                each.check(value, each.name)
        if self.patience is not None and self.validation is None:
            raise ArgumentError("patience: expected validation data to watch, got none. Pass validation=0.1.")
        if self.kl_warmup >= self.epochs > 1:
            raise ArgumentError(
                f"kl_warmup: expected fewer than epochs={self.epochs}, got {self.kl_warmup}: the fit would end before "
                "the KL has its weight. Lower it, or raise epochs."
            )

    def shared(self) -> dict[str, Any]:
        """The values that have to be the same in all processes of a fit; data are compared elsewhere."""
        values = {name: getattr(self, name) for name in OPTIONS if name != "device"}
        return {
            name: value if isinstance(value, int | float | str | None) else "data" for name, value in values.items()
        }

    def fixed(self) -> dict[str, Any]:
        """The values that have to be the same when the fit is resumed."""
        return {name: getattr(self, name) for name, each in OPTIONS.items() if not each.may_change}


def options_of(table: type) -> dict[str, Option]:
    """The options by name, as the fields of ``table`` say them."""
    return {each.name: _described(each) for each in fields(table)}


def _described(each: "Field[Any]") -> Option:
    said = {"types": _types(each.type), "words": {}, "table": "training", "may_change": False, **each.metadata}
    assert each.default is not MISSING, f"{each.name}: an option has a default"
    return Option(**{"name": each.name, "default": each.default, "recipe_default": each.default, **said})


def _types(annotation: Any) -> tuple[type, ...]:
    """The types of an annotation, None apart; an integer is a number too."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    return (int, float) if kinds == (float,) else kinds


OPTIONS = options_of(FitOptions)


def chosen(options: FitOptions | None, keywords: Mapping[str, Any]) -> FitOptions:
    """``options`` with the ``keywords`` on top. Raises for a keyword that is no option, with the nearest name."""
    for name in keywords:
        if name not in OPTIONS:
            raise UnknownOptionError(str(unknown_name("option of fit", name, OPTIONS)))
    return replace(options or FitOptions(), **keywords)


def flat(tables: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of nested tables with all tables above them, and their values.

    >>> dict(flat({"model": {"prior": {"name": "a"}, "latent_dim": 2}}))
    {'model.prior.name': 'a', 'model.latent_dim': 2}
    """
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def described(function: Function) -> Function:
    """``function``, whose ``**keywords`` are options, with each of them in its signature and its docstring.

    The docstring has a line ``{options}`` where they are to be described.
    """
    signature = inspect.signature(function)
    named = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    keyword = inspect.Parameter.KEYWORD_ONLY
    for each in fields(FitOptions):
        named.append(inspect.Parameter(each.name, keyword, default=each.default, annotation=each.type))
    function.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]  # read by inspect
    lines = "".join(f"{name}\n    {each.help} Default: {each.default!r}.\n" for name, each in OPTIONS.items())
    function.__doc__ = inspect.cleandoc(function.__doc__ or "").replace(_PLACE, lines.rstrip())
    return function
