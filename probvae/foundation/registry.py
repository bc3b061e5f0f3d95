"""Components by name, with the arguments that built them; other packages add components by entry points."""

import inspect
import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Self

from probvae.errors import ConfigError, PluginWarning, unknown_name


class Registered:
    """Base of every component family: ``class MixturePrior(Prior, name="mixture")`` registers itself.

    A family is a direct child made with ``family="prior"`` and has a registry of its own. An instance remembers its
    constructor's arguments as :attr:`arguments`, so that it can be written down and rebuilt.
    """

    family: ClassVar[str]
    registry: ClassVar[dict[str, type[Self]]]
    registered_name: ClassVar[str | None] = None
    arguments: dict[str, Any]

    def __init_subclass__(cls, *, name: str | None = None, family: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if family is not None:
            cls.family, cls.registry = family, {}
        cls.registered_name = name
        if name is None:
            return
        if name in cls.registry:
            raise ConfigError(f"{cls.family} name {name!r} is taken by {cls.registry[name].__name__}.")
        cls.registry[name] = cls  # type: ignore[assignment]  # Self of a ClassVar is not bound to cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        instance = super().__new__(cls)
        # nn.Module's __setattr__ needs its __init__ to have run, and would adopt modules among the arguments
        object.__setattr__(instance, "arguments", _bind(cls, args, kwargs))
        return instance

    @classmethod
    def named(cls, name: str) -> type[Self]:
        """The class that is registered under ``name``; an unknown name is an error with a suggestion."""
        if name not in cls.registry:
            load_plugins(cls.family)
        if name not in cls.registry:
            raise unknown_name(cls.family, name, cls.registry)
        return cls.registry[name]

    @classmethod
    def all_registered(cls) -> dict[str, type[Self]]:
        """The registry, with the components of installed packages."""
        load_plugins(cls.family)
        return cls.registry

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring, for ``probvae list`` and the documentation's tables."""
        return (inspect.getdoc(cls) or "").split("\n", 1)[0].rstrip(".")


def option_names(component: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters of a component, by name, in order (without ``self``)."""
    return {name: parameter for name, parameter in _constructor(component).parameters.items() if name != "self"}


def _constructor(component: type) -> inspect.Signature:
    # The signature of the class itself would be the one of __new__ above
    return inspect.signature(component.__init__)  # type: ignore[misc]  # the subclass's own __init__ is wanted


def _bind(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        bound = _constructor(cls).bind(None, *args, **kwargs)
    except TypeError:
        return {}  # with wrong arguments, __init__ itself raises a TypeError right after this
    bound.apply_defaults()  # a saved model must not change when a default does
    return {name: value for name, value in bound.arguments.items() if name != "self"}


@cache
def load_plugins(family: str) -> None:
    """Import the components that installed packages offer for ``family`` ("prior"), once for each family.

    A class registers itself as it is defined. An entry that cannot be imported, or that is no component, gives a
    warning with its name, and does not hinder the others.
    """
    for entry in entry_points(group=f"probvae.{family}s"):
        try:
            offered = entry.load()
        except Exception as error:  # another package may fail in any way
            _warn(family, entry, f"cannot be loaded ({type(error).__name__}: {str(error).rstrip('.')})")
            continue
        if getattr(offered, "family", None) != family or getattr(offered, "registered_name", None) is None:
            _warn(family, entry, f"is no component: expected a {family} class with name='...', got {offered!r}")


def _warn(family: str, entry: EntryPoint, reason: str) -> None:
    package = entry.dist.name if entry.dist else entry.value
    message = f"{family} {entry.name!r} of the package {package} {reason}. Update or remove that package."
    warnings.warn(message, PluginWarning, stacklevel=4)
