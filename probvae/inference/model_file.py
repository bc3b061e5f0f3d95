"""Components as plain data and back, so that a model can be written as TOML and rebuilt without pickle."""

from collections.abc import Mapping
from typing import Any

from probvae.errors import ConfigError, NotLinearGaussianError, unknown_name
from probvae.foundation.registry import Registered, option_names
from probvae.inference.encoders import Encoder
from probvae.inference.guides import Guide
from probvae.models import Covariates, Decoder, Likelihood, Prior

FAMILIES: dict[str, type[Registered]] = {
    base.family: base for base in (Prior, Decoder, Likelihood, Covariates, Guide, Encoder)
}
_SCALARS = (bool, int, float, str)


def describe(component: object, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A component as ``{"family": ..., "name": ..., **constructor arguments}``, nested where they nest.

    Arguments that are the very objects in ``given`` are left out; :func:`build` takes them from there again. So a
    guide that holds the model is written without it, and attached to the loaded model.
    Raises :class:`~probvae.errors.ConfigError` for one that is not registered, or an argument with no plain form.
    """
    if not isinstance(component, Registered) or component.registered_name is None:
        raise ConfigError(
            f"{type(component).__name__}: cannot be saved by name, because it is not registered. Inherit Decoder (or "
            "Encoder, Prior, ...) with name='...', or save vae.state_dict() yourself."
        )
    given = given or {}
    own = {name: value for name, value in component.arguments.items() if name not in given or value is not given[name]}
    arguments = {name: _plain(component, name, value) for name, value in own.items()}
    known = {name: value for name, value in arguments.items() if value is not None}
    return {"family": component.family, "name": component.registered_name, **known}


def build(description: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Any:
    """The component that :func:`describe` described; only registered classes can be named."""
    if not isinstance(description, Mapping):
        raise ConfigError(f"component: expected a table with family and name, got {description!r}.")
    description = dict(description)
    family, name = description.pop("family", None), description.pop("name", None)
    if not isinstance(family, str) or family not in FAMILIES:
        raise unknown_name("component family", str(family), FAMILIES)
    component = FAMILIES[family].named(str(name))
    known = option_names(component)
    for option in description:
        if option not in known:
            raise unknown_name(f"option of {family} {name!r}", option, known)
    taken = {name: value for name, value in (given or {}).items() if name in known}
    try:
        return component(**taken | {option: _built(value) for option, value in description.items()})
    except NotLinearGaussianError:
        raise  # a TypeError too, and it says more than a wrong argument does
    except TypeError as error:
        raise ConfigError(f"{family} {name!r}: {error}.") from error


def _plain(component: Registered, name: str, value: Any) -> Any:
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, list | tuple):
        return [_plain(component, name, item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(component, name, item) for key, item in value.items()}
    if isinstance(value, Registered):
        return describe(value)
    raise ConfigError(
        f"{type(component).__name__}: its argument {name!r} is a {type(value).__name__}, which has no plain form. "
        "Use a registered component or a number, or save vae.state_dict() yourself."
    )


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return [_built(item) for item in value]
    # a table without a family is the option's own, not a component
    return build(value) if isinstance(value, Mapping) and "family" in value else value
