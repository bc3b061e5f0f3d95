"""Components by name, and the arguments they were made with (which is what a saved model needs)."""

import inspect
from typing import Any, ClassVar, Self

from probvae._plugins import load_plugins
from probvae.errors import ConfigError, unknown_name


class Registered:
    """Base of every component family: ``class MixturePrior(Prior, name="mixture")`` registers itself.

    A family is a direct child made with ``family="prior"``; it gets a registry of its own. An instance
    remembers its constructor's arguments as :attr:`arguments`, so that it can be written down and rebuilt.
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
        # object.__setattr__: nn.Module's own would want its __init__ to have run, and would adopt submodules
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
        """The registry, with what installed packages add to it."""
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
    # not that of the class itself, which would be of __new__ above
    return inspect.signature(component.__init__)  # type: ignore[misc]  # a subclass may have another: it is asked for


def _bind(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        bound = _constructor(cls).bind(None, *args, **kwargs)
    except TypeError:
        return {}  # wrong arguments: __init__ itself is about to say so, in Python's own words
    bound.apply_defaults()  # a saved model must not change when a default does
    return {name: value for name, value in bound.arguments.items() if name != "self"}
