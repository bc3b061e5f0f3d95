"""A model and a guide that belong together."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probvae import specification
from probvae._files import write_atomic
from probvae.errors import RunError, ShapeError
from probvae.inference.encoders import MLPEncoder
from probvae.inference.guides import DiagonalGuide, Guide
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, StandardNormalPrior

FORMAT_VERSION = "1"


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
        data_dim = getattr(getattr(guide, "encoder", None), "data_dim", model.data_dim)
        if data_dim != model.data_dim:
            raise ShapeError(
                f"guide: expected an encoder with data_dim={model.data_dim} (the model's), got {data_dim}. "
                f"Build the encoder with data_dim={model.data_dim}."
            )
        self.model, self.guide = model, guide

    def forward(self, x: Tensor) -> torch.distributions.Distribution:
        """q_x(z) for the data ``x`` (N, D)."""
        return self.guide.distribution(x)

    def save(self, path: str | Path) -> None:
        """Write weights and components to one safetensors file, atomically; the components stand in it as TOML.

        Raises :class:`~probvae.errors.ConfigError` for components that are not registered, and
        :class:`~probvae.errors.RunError` when the file cannot be written.
        """
        import tomlkit
        from safetensors.torch import save_file

        metadata = {"format": FORMAT_VERSION, "components": tomlkit.dumps(self.components())}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_atomic(Path(path), lambda temporary: save_file(tensors, temporary, metadata))

    @classmethod
    def load(cls, path: str | Path) -> "VAE":
        """Read what :meth:`save` wrote; the outputs are the same bit for bit.

        Raises :class:`~probvae.errors.RunError` for a file that is not there, damaged, or not ours.
        """
        tensors, metadata = _read(Path(path))
        vae = _rebuild(Path(path), metadata)
        try:
            vae.to(next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()))
            vae.load_state_dict(tensors)
        except (RuntimeError, StopIteration) as error:
            raise RunError(f"{path}: the weights do not fit the components ({error}).") from error
        return vae

    def components(self) -> dict[str, Any]:
        """The registered names and options of all parts, as plain data."""
        model = self.model
        parts = {
            "prior": model.prior,
            "decoder": model.decoder,
            "likelihood": model.likelihood,
            "guide": self.guide,
        }
        return {role: specification.describe(part, {"model": model}) for role, part in parts.items()}

    @classmethod
    def from_components(cls, components: dict[str, Any]) -> "VAE":
        """The inverse of :meth:`components`, with fresh weights."""
        model = LatentModel(*(specification.build(components[role]) for role in ("prior", "decoder", "likelihood")))
        return cls(model, specification.build(components["guide"], {"model": model}))

    @classmethod
    def example(cls) -> "VAE":
        """A small instance (data_dim 3, latent_dim 2)."""
        model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3))
        return cls(model, DiagonalGuide(MLPEncoder(3, hidden=(5,)), 2))


def load(path: str | Path) -> VAE:
    """The fitted VAE of a run folder (or of a file that :meth:`VAE.save` wrote).

    Raises :class:`~probvae.errors.RunError` when there is none, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(f"{path}: there is no such run. Give the folder that `probvae fit` wrote.")
    return VAE.load(path / "model.safetensors" if path.is_dir() else path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RunError(f"{path}: there is no such file. Was the fit stopped before its end?")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: not a whole safetensors file ({error}). Fit again, or take a checkpoint.") from error


def _rebuild(path: Path, metadata: dict[str, str]) -> VAE:
    import tomllib

    if metadata.get("format") != FORMAT_VERSION or "components" not in metadata:
        raise RunError(f"{path}: expected a probvae model of format {FORMAT_VERSION}, got {metadata.get('format')!r}.")
    try:
        return VAE.from_components(tomllib.loads(metadata["components"]))
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise RunError(f"{path}: the description of its components is damaged ({error}).") from error
