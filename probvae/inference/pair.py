"""A model and a guide that belong together."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probvae import __version__
from probvae.errors import ArgumentError, ConfigError, ProbvaeError, RunError, ShapeError
from probvae.foundation.operators import BoundedAllocation
from probvae.foundation.registry import option_names
from probvae.foundation.seed import isolated_seed
from probvae.inference import model_file as specification
from probvae.inference.encoders import Encoder, MaskedEncoder, MLPEncoder
from probvae.inference.guides import DiagonalGuide, ExactGuide, Guide
from probvae.inference.guides.conditioned_guide import given
from probvae.inference.training.checkpoints import TRAINING
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, Prior, StandardNormalPrior
from probvae.storage.tensor_files import read_tensors, write_tensors
from probvae.storage.untrusted import FORMAT, check_format, check_run_format, run_file

MODEL = "model.safetensors"
# of the components' description: thousands of columns fit
_LONGEST_DESCRIPTION = 2**22


class VAE(nn.Module):
    """A :class:`~probvae.models.LatentModel` p(z) p(x|z) and a guide q_x(z).

    ``vae(x)`` is the guide's distribution, batch_shape (N,) and event_shape (d,). The pair has no other behaviour of
    its own: functions take it (:func:`~probvae.fit`, :func:`~probvae.elbo`).

    >>> vae = VAE.example()
    >>> vae(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """

    def __init__(self, model: LatentModel, guide: Guide) -> None:
        super().__init__()
        if model.latent_dim != guide.latent_dim:
            raise ShapeError(
                f"guide: expected latent_dim={model.latent_dim} (the model's), got {guide.latent_dim}. "
                f"Build the guide with latent_dim={model.latent_dim}."
            )
        num_inputs = model.data_dim + (model.covariates.num_covariates if model.covariates else 0)
        data_dim = getattr(getattr(guide, "encoder", None), "data_dim", num_inputs)
        if data_dim != num_inputs:
            what = "the model's" if num_inputs == model.data_dim else "the model's, and its covariates"
            raise ShapeError(
                f"guide: expected an encoder with data_dim={num_inputs} ({what}), got {data_dim}. "
                f"Build the encoder with data_dim={num_inputs}."
            )
        self.model, self.guide = model, guide

        _check_mask_is_read(model, guide)

    def given(self, y: Any = None, exposure: Any = None) -> "GivenVAE":
        """The pair for given covariates: p(z|y) p(x|z, y) and q(z|x, y), with the weights of this one.

        ``y`` are labels (N,) or numbers (N, C) as the model was trained with, or one row for all data; ``exposure``
        (N,) multiplies the rates of counts. What takes a VAE takes the result.
        Raises :class:`~probvae.errors.DataError` for a label that training has not seen.
        """
        first = next(self.parameters())
        columns = None if y is None else self._encoded(y).to(first)
        if exposure is not None:
            exposure = torch.as_tensor(exposure, dtype=first.dtype, device=first.device).reshape(-1, 1)
            self.model.likelihood.check_exposure(exposure)
        return GivenVAE(self, columns, exposure)

    def _encoded(self, y: Any) -> Tensor:
        if self.model.covariates is None:
            raise ArgumentError("y: this model is not conditional. Leave y out, or build it with covariates=...")
        return self.model.covariates.encode(y)

    def at(self, rows: slice | Tensor) -> "VAE":
        """The pair for some rows of the data: itself, because nothing in it belongs to a datum."""
        return self

    def forward(self, x: Tensor) -> torch.distributions.Distribution:
        """q_x(z) for the data ``x`` (N, D)."""
        return self.guide.distribution(x)

    def save(self, path: str | Path) -> None:
        """Write weights and components to one safetensors file, atomically; the components stand in it as TOML.

        Raises :class:`~probvae.errors.ConfigError` for components that are not registered, and
        :class:`~probvae.errors.RunError` when the file cannot be written.
        """
        write_tensors(Path(path), self.state_dict(), self.metadata())

    def metadata(self) -> dict[str, str]:
        """What :meth:`save` writes beside the weights: the format, who writes it, and the components as TOML."""
        components = _as_toml(json.dumps(self.components()))
        return {"format": str(FORMAT), "probvae": __version__, "components": components}

    @classmethod
    def load(cls, path: str | Path) -> "VAE":
        """Read what :meth:`save` wrote; the outputs are the same bit for bit.

        Raises :class:`~probvae.errors.RunError` for a file that is not there, damaged, or not ours.
        """
        found, metadata = read_tensors(Path(path))
        tensors = {name: tensor for name, tensor in found.items() if not name.startswith(TRAINING)}
        vae = _rebuild(Path(path), metadata, tensors)
        try:
            vae.to(next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()))
            vae.load_state_dict(tensors)
        except (RuntimeError, StopIteration) as error:
            raise RunError(f"{path}: the weights do not fit the components ({error}).") from error
        return vae.eval()  # what was fitted is there to be used: no dropout

    def components(self) -> dict[str, Any]:
        """The registered names and options of all parts, as plain data."""
        model = self.model
        parts = {
            "prior": model.prior,
            "decoder": model.decoder,
            "likelihood": model.likelihood,
            "guide": self.guide,
        }
        given = {"model": model, "guide": self.guide}
        components: dict[str, Any] = {role: specification.describe(part, given) for role, part in parts.items()}
        if model.covariates is not None:
            components["covariates"] = specification.describe(model.covariates)
        if model.missing != "refuse":
            components["missing"] = model.missing
        return components

    @classmethod
    def from_components(cls, components: dict[str, Any]) -> "VAE":
        """The inverse of :meth:`components`, with fresh weights."""
        # a prior that is made of the guide comes after it; every other part comes before
        made_of_guide = _made_of_guide(components["prior"])
        guide = specification.build(components["guide"]) if made_of_guide else None
        given = {"guide": guide} if made_of_guide else None
        parts: list[Any] = [specification.build(components[role], given) for role in ("prior", "decoder", "likelihood")]
        covariates = specification.build(components["covariates"]) if "covariates" in components else None
        prior, decoder, likelihood = parts
        model = LatentModel(prior, decoder, likelihood, covariates, components.get("missing", "refuse"))
        return cls(model, guide or specification.build(components["guide"], {"model": model}))

    @classmethod
    def example(cls) -> "VAE":
        """A small instance (data_dim 3, latent_dim 2)."""
        model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3))
        return cls(model, DiagonalGuide(MLPEncoder(3, hidden=(5,)), 2))


class GivenVAE(VAE):
    """A VAE whose covariates are given: made by :meth:`VAE.given`, with the same weights.

    ``num_given`` is the number of data that the covariates are for; None if they are the same for all.
    """

    def __init__(self, vae: VAE, y: Tensor | None, exposure: Tensor | None) -> None:
        model = vae.model.with_columns(y, exposure)
        super().__init__(model, _given_guide(vae, model, y))
        lengths = {len(value) for value in (y, exposure) if value is not None and len(value) > 1}
        if len(lengths) > 1:
            raise ShapeError(f"exposure: expected one for each row of y, got {sorted(lengths)} rows. Pass both whole.")
        self.num_given = lengths.pop() if lengths else None
        # in a tuple, which nn.Module does not look into: the weights are in the given parts already
        self._whole = (vae, y, exposure)

    def _apply(self, fn: Any, recurse: bool = True) -> "GivenVAE":
        super()._apply(fn, recurse)
        vae, y, exposure = self._whole
        self._whole = (vae, y if y is None else fn(y), exposure if exposure is None else fn(exposure))
        return self

    def at(self, rows: slice | Tensor) -> VAE:
        """The pair for some of the data."""
        vae, y, exposure = self._whole
        return GivenVAE(vae, _rows(y, rows), _rows(exposure, rows))

    @property
    def columns(self) -> list[Tensor]:
        """The given covariates and exposure, as far as there are any."""
        return [value for value in self._whole[1:] if value is not None]

    def with_columns(self, columns: Sequence[Tensor]) -> "GivenVAE":
        """The same weights with other :attr:`columns`."""
        vae, y, exposure = self._whole
        others = iter(columns)
        return GivenVAE(vae, y if y is None else next(others), exposure if exposure is None else next(others))

    def groups(self, num_data: int) -> list[Tensor]:
        """The row numbers of the data, in groups that have the same covariates."""
        columns = [value.expand(num_data, -1) for value in self._whole[1:] if value is not None]
        position = torch.cat(columns, dim=1).unique(dim=0, return_inverse=True)[1]
        return [(position == group).nonzero()[:, 0] for group in range(int(position.max()) + 1)]

    def components(self) -> dict[str, Any]:
        raise ConfigError(
            "vae: expected the conditional VAE, got one for given y. Save the VAE that given() was called on."
        )


def _made_of_guide(prior: Any) -> bool:
    if not isinstance(prior, Mapping) or prior.get("family") != Prior.family:
        return False  # a damaged description, which build() refuses with the reason
    return "guide" in option_names(Prior.named(str(prior.get("name"))))


def _rows(values: Tensor | None, rows: slice | Tensor) -> Tensor | None:
    return values if values is None or len(values) == 1 else values[rows]


def _given_guide(vae: VAE, model: LatentModel, y: Tensor | None) -> Guide:
    if isinstance(vae.guide, ExactGuide):
        return ExactGuide(model, vae.guide.detach)
    return vae.guide if y is None else given(vae.guide, y)


def _check_mask_is_read(model: LatentModel, guide: Guide) -> None:
    encoder = getattr(guide, "encoder", None)
    if model.missing == "mask" and isinstance(encoder, Encoder) and not isinstance(encoder, MaskedEncoder):
        raise ConfigError(
            f"guide: with missing='mask' the encoder must read the mask, and {type(encoder).__name__} does not. "
            "Wrap it: MaskedEncoder(encoder, data_dim), with an encoder built for twice the columns."
        )


@lru_cache(maxsize=4)
def _as_toml(components: str) -> str:
    """JSON as TOML; a fit saves the same components after every epoch, and TOML is written slowly."""
    import tomlkit

    text: str = tomlkit.dumps(json.loads(components))
    return text


def load(path: str | Path) -> VAE:
    """The fitted VAE of a run folder (or of a file that :meth:`VAE.save` wrote).

    Nothing in the folder can execute code, nothing outside of it is read, and what it makes is no larger than its
    weights call for. Raises :class:`~probvae.errors.RunError` when there is no run, it is damaged, a file in it is a
    link, or a later version of the package wrote it.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(f"{path}: there is no such run. Give the folder that `probvae fit` wrote.")
    if not path.is_dir():
        return VAE.load(path)
    check_run_format(path)
    if not (path / MODEL).exists() and (path / "checkpoints").is_dir():
        raise RunError(
            f"{path}: no {MODEL}, the fit was stopped before its end. Go on with: probvae fit --resume {path}"
        )
    return VAE.load(run_file(path, MODEL))


def _rebuild(path: Path, metadata: dict[str, str], tensors: Mapping[str, Tensor]) -> VAE:
    components = _components(path, metadata)
    num_numbers = sum(tensor.numel() for tensor in tensors.values())
    # some ten times what the package's own components make of themselves
    bounds = BoundedAllocation(2**22 + 40 * num_numbers, 2_000 + 100 * len(tensors))
    try:
        with isolated_seed(0), bounds:
            vae = VAE.from_components(components)
    except ConfigError:
        raise
    except Exception as error:  # numbers that no component was made for may fail anywhere
        reason = str(error) if isinstance(error, ProbvaeError) else f"{type(error).__name__}: {error}"
        raise RunError(f"{path}: the description of its components is damaged ({reason}).") from error
    _check_numbers(path, vae, tensors)
    return vae


def _check_numbers(path: Path, vae: VAE, tensors: Mapping[str, Tensor]) -> None:
    """Raise for numbers that are not finite, but for missing entries of data that a guide was made for."""
    data = {f"guide.{name}" for name, _ in vae.guide.named_buffers()} if vae.model.missing == "mask" else set()
    for name, tensor in tensors.items():
        bad = tensor.isinf() if name in data else ~tensor.isfinite()
        if bad.any():
            raise RunError(f"{path}: {name} has entries that are not finite. Fit again, or take a checkpoint.")


def _components(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    import tomllib

    number, text = metadata.get("format", ""), metadata.get("components")
    if text is None or not number.isdecimal():
        raise RunError(f"{path}: expected a probvae model of format {FORMAT}, got {number!r}. Give the file of a run.")
    check_format(int(number[:9]), metadata.get("probvae"), path)
    if len(text) > _LONGEST_DESCRIPTION:
        raise RunError(f"{path}: the description of its components is longer than any. Give the file of a run.")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: the description of its components is damaged ({error}).") from error
