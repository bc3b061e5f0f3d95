"""From a recipe's names to objects: the one place where names become components."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from probvae.errors import ConfigError, ProbvaeError, RunError, unknown_name
from probvae.experiments.recipe import Recipe
from probvae.foundation.operators import BoundedAllocation
from probvae.foundation.registry import Registered, option_names
from probvae.foundation.seed import isolated_seed
from probvae.inference.encoders import Encoder, MaskedEncoder
from probvae.inference.guides import Guide, inside_support
from probvae.inference.objectives import Objective
from probvae.inference.pair import VAE
from probvae.models import Covariates, Decoder, LatentModel, Likelihood, Prior

T = TypeVar("T", bound=Registered)

# A learned c that has fallen to this share of the data's variance explains the data to six digits: its floor.
_RELATIVE_FLOOR = 1e-6
# A recipe may ask for 2 GB of weights, 8 GB with their gradients and Adam's moments; a larger one is a slip
_MOST_NUMBERS, _MOST_STEPS = 2**29, 20_000


def build_vae(
    recipe: Recipe,
    data_dim: int,
    data_variance: float,
    num_data: int = 1,
    covariates: Covariates | None = None,
    image_shape: Sequence[int] | None = None,
) -> VAE:
    """The VAE of a resolved recipe for data of width ``data_dim``, its weights drawn with the recipe's seed.

    ``data_variance`` is the mean variance of the data's columns: where a learned c begins; ``num_data`` how many there
    are, for a guide that has parameters for each; the model is conditional on the ``covariates``; ``image_shape`` is
    the shape of a row, for convolutions.
    Raises :class:`~probvae.errors.ConfigError` for a name or an option that there is not, and for more weights than
    half a billion, before they take memory.
    """
    with isolated_seed(recipe["training"]["seed"]), _bounded():
        model, inference = recipe["model"], recipe["inference"]
        missing = model.get("missing", "refuse")
        num_covariates = covariates.num_covariates if covariates else 0
        sizes = {"latent_dim": model["latent_dim"], "data_dim": data_dim}
        floor = _RELATIVE_FLOOR * data_variance
        variances = {"initial_variance": data_variance, "minimum_variance": floor, "minimum_scale": floor**0.5}
        drawn_first = not _takes(Prior, model["prior"], "guide")
        known = {**sizes, "num_covariates": num_covariates}
        prior = component(Prior, model["prior"], known) if drawn_first else None
        likelihood = component(Likelihood, model["likelihood"], {**sizes, **variances})
        read = {"latent_dim": model["latent_dim"] + num_covariates, "num_outputs": likelihood.num_outputs}
        image = {} if image_shape is None else {"image_shape": list(image_shape)}
        decoder = component(Decoder, model["decoder"], {**sizes, **read, **image})
        num_inputs = data_dim + num_covariates
        known_to_guide: dict[str, Any] = {
            "encoder": _encoder(inference["encoder"], data_dim, num_inputs, missing, image),
            "num_data": num_data,
            "data_dim": num_inputs,
        }
        if prior is None:
            guide = _guide_before_model(recipe, {**sizes, **known_to_guide})
            prior = component(Prior, model["prior"], {**known, "guide": guide, "data_dim": num_inputs})
            return VAE(LatentModel(prior, decoder, likelihood, covariates, missing), guide)
        latent_model = LatentModel(prior, decoder, likelihood, covariates, missing)
        guide = component(Guide, inference["guide"], {**sizes, **known_to_guide, "model": latent_model})
        return VAE(latent_model, inside_support(guide, prior))


@contextmanager
def _bounded() -> Iterator[None]:
    try:
        with BoundedAllocation(_MOST_NUMBERS, _MOST_STEPS):
            yield
    except RunError as error:
        raise ConfigError(
            f"model: expected at most {_MOST_NUMBERS} weights and {_MOST_STEPS} steps to make them, got a recipe of "
            "more. Take fewer latent dimensions, components or transforms, or narrower layers."
        ) from error


def _guide_before_model(recipe: Recipe, known: Mapping[str, Any]) -> Guide:
    """The guide, for a prior that is made of it."""
    prior, guide = recipe["model"]["prior"], recipe["inference"]["guide"]
    if _takes(Guide, guide, "model"):
        raise ConfigError(
            f"prior {prior['name']!r} is made of the guide, and guide {guide['name']!r} of the model. Use guide "
            "'diagonal', or another prior."
        )
    return component(Guide, guide, known)


def _takes(family: type[Registered], table: Mapping[str, Any], option: str) -> bool:
    return option in option_names(family.named(table["name"]))


def _encoder(
    table: Mapping[str, Any], data_dim: int, num_inputs: int, missing: str, image: Mapping[str, Any]
) -> Encoder:
    """The encoder of x and the covariates; with missing data it reads the mask too."""
    if missing != "mask":
        return component(Encoder, table, {"data_dim": num_inputs, "num_beside": num_inputs - data_dim, **image})
    inner = component(Encoder, table, {"data_dim": num_inputs + data_dim, "num_beside": num_inputs, **image})
    return MaskedEncoder(inner, num_inputs, num_masked=data_dim)


def build_objective(recipe: Recipe) -> Objective:
    """The objective of a resolved recipe."""
    return component(Objective, recipe["inference"]["objective"], {})


def component(family: type[T], table: Mapping[str, Any], known: Mapping[str, Any]) -> T:
    """The component that ``table`` names, with its options; sizes it needs and the table lacks are in ``known``."""
    options = dict(table)
    chosen = family.named(options.pop("name"))
    parameters = option_names(chosen)
    for option in options:
        if option not in parameters:
            raise unknown_name(f"option of {family.family} {table['name']!r}", option, set(parameters) - set(known))
    filled = {name: value for name, value in known.items() if name in parameters} | options
    missing = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in filled]
    if missing:
        fix = " The data are no images: take 'mlp', or give it." if missing[0] == "image_shape" else ""
        raise ConfigError(f"{family.family} {table['name']!r}: expected a value for {missing[0]!r}, got none.{fix}")
    try:
        return chosen(**filled)
    except ProbvaeError:
        raise  # most are a ValueError or TypeError too, and say more than a wrong argument does
    # constructors, torch's among them, raise these for impossible sizes and for wrong types
    except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{family.family} {table['name']!r}: {error}.") from error
