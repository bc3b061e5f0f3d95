"""A model and a guide as a file: weights beside a description of the components, rebuilt without pickle."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from probvae.errors import ConfigError, NotLinearGaussianError, RunError, unknown_name
from probvae.foundation.package import __version__
from probvae.foundation.registry import Registered, option_names
from probvae.inference.encoders import Encoder
from probvae.inference.guides import Guide
from probvae.models import Covariates, Decoder, LatentModel, Likelihood, Prior
from probvae.storage.tensor_files import read_tensors
from probvae.storage.untrusted import FORMAT, check_finite_tensors, check_run_format, read_description, run_file

MODEL = "model.safetensors"
# A checkpoint holds more than the weights: names of tensors that only a fit reads begin with this prefix.
TRAINING = "training."
FAMILIES: dict[str, type[Registered]] = {
    base.family: base for base in (Prior, Decoder, Likelihood, Covariates, Guide, Encoder)
}
_SCALARS = (bool, int, float, str)


class StoredModel(NamedTuple):
    """The ``components`` and ``weights`` that stand in the file ``path``; no component has been built yet."""

    path: Path
    components: dict[str, Any]
    weights: Mapping[str, Tensor]


def read_model(path: Path) -> StoredModel:
    """Read a model file or a checkpoint.

    Raises :class:`~probvae.errors.RunError` for a file that is missing, damaged, or of another program.
    """
    tensors, metadata = read_tensors(path)
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(TRAINING)}
    return StoredModel(path, read_description(path, metadata), weights)


def model_path(path: Path) -> Path:
    """The model file of a run folder, or ``path`` itself where it is a file.

    Raises :class:`~probvae.errors.RunError` where there is no run, its fit was stopped, or a later version of the
    package wrote it.
    """
    if not path.exists():
        raise RunError(f"{path}: there is no such run. Give the folder that `probvae fit` wrote.")
    if not path.is_dir():
        return path
    check_run_format(path)
    if not (path / MODEL).exists() and (path / "checkpoints").is_dir():
        raise RunError(
            f"{path}: no {MODEL}, the fit was stopped before its end. Go on with: probvae fit --resume {path}"
        )
    return run_file(path, MODEL)


def file_metadata(components: Mapping[str, Any]) -> dict[str, str]:
    """The text beside the weights: the format, the version of the package, and the components as TOML."""
    return {"format": str(FORMAT), "probvae": __version__, "components": _as_toml(json.dumps(components))}


def check_finite_weights(stored: StoredModel, model: LatentModel, guide: Guide) -> None:
    """Raise for weights that are not finite; NaN is legal in data that a guide for missing entries holds."""
    data = {f"guide.{name}" for name, _ in guide.named_buffers()} if model.missing == "mask" else set()
    check_finite_tensors(stored.path, stored.weights, may_have_nan=data)


def describe_pair(model: LatentModel, guide: Guide) -> dict[str, Any]:
    """The registered names and options of all parts of a model and a guide, as plain data."""
    parts = {"prior": model.prior, "decoder": model.decoder, "likelihood": model.likelihood, "guide": guide}
    whole = {"model": model, "guide": guide}
    components: dict[str, Any] = {role: describe(part, whole) for role, part in parts.items()}
    if model.covariates is not None:
        components["covariates"] = describe(model.covariates)
    if model.missing != "refuse":
        components["missing"] = model.missing
    return components


def build_pair(components: Mapping[str, Any]) -> tuple[LatentModel, Guide]:
    """The inverse of :func:`describe_pair`, with fresh weights."""
    # a prior that holds the guide is built after it; every other part is built before the guide
    prior_holds_guide = _holds_guide(components["prior"])
    guide = build(components["guide"]) if prior_holds_guide else None
    whole = {"guide": guide} if prior_holds_guide else None
    parts: list[Any] = [build(components[role], whole) for role in ("prior", "decoder", "likelihood")]
    covariates = build(components["covariates"]) if "covariates" in components else None
    prior, decoder, likelihood = parts
    model = LatentModel(prior, decoder, likelihood, covariates, components.get("missing", "refuse"))
    return model, guide or build(components["guide"], {"model": model})


def _holds_guide(prior: Any) -> bool:
    if not isinstance(prior, Mapping) or prior.get("family") != Prior.family:
        return False  # build() refuses a damaged description, with the reason
    return "guide" in option_names(Prior.named(str(prior.get("name"))))


def describe(component: object, whole: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A component as ``{"family": ..., "name": ..., **constructor arguments}``, nested where they nest.

    Arguments that are the very objects in ``whole`` are left out, and :func:`build` takes them from its ``whole``. So
    a guide that holds the model is written without the model, and attached to the loaded one.
    Raises :class:`~probvae.errors.ConfigError` for one that is not registered, or an argument with no plain form.
    """
    if not isinstance(component, Registered) or component.registered_name is None:
        raise ConfigError(
            f"{type(component).__name__}: cannot be saved by name, because it is not registered. Inherit Decoder (or "
            "Encoder, Prior, ...) with name='...', or save vae.state_dict() yourself."
        )
    whole = whole or {}
    own = {name: value for name, value in component.arguments.items() if name not in whole or value is not whole[name]}
    arguments = {name: _plain(component, name, value) for name, value in own.items()}
    known = {name: value for name, value in arguments.items() if value is not None}
    return {"family": component.family, "name": component.registered_name, **known}


def build(description: Mapping[str, Any], whole: Mapping[str, Any] | None = None) -> Any:
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
    taken = {name: value for name, value in (whole or {}).items() if name in known}
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


@lru_cache(maxsize=4)
def _as_toml(components: str) -> str:
    """JSON as TOML; a fit saves the same components after every epoch, and TOML is written slowly."""
    import tomlkit

    text: str = tomlkit.dumps(json.loads(components))
    return text
