"""The pair p(z) p(x|z) and q_x(z): what evaluation, training and every diagnostic take."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, TransformedDistribution, constraints

from probvae.errors import ArgumentError, ConfigError, RunError, ShapeError
from probvae.foundation.checks import check_matrix, check_no_mask
from probvae.inference.densities.point_mass import check_has_density
from probvae.inference.encoders import Encoder, MaskedEncoder, MLPEncoder
from probvae.inference.guides import DiagonalGuide, ExactGuide, Guide
from probvae.inference.guides.conditioned_guide import conditioned
from probvae.inference.model_file import (
    build_pair,
    check_finite_weights,
    describe_pair,
    file_metadata,
    model_path,
    read_model,
)
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, StandardNormalPrior
from probvae.storage.tensor_files import write_tensors
from probvae.storage.untrusted import bounded_build


class VAE(nn.Module):
    """A :class:`~probvae.models.LatentModel` p(z) p(x|z) and a guide q_x(z).

    ``vae(x)`` is the guide's distribution, batch_shape (N,) and event_shape (d,). What is computed with the pair is
    a function that takes it (:func:`~probvae.fit`, :func:`~probvae.elbo`).

    ``num_rows`` is None where the pair serves any data. A conditional model becomes a pair for certain data by
    :meth:`given`; where each of N data has covariates of its own, ``num_rows`` is N, and :meth:`at` takes some of them.

    >>> vae = VAE.example()
    >>> vae(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """

    num_rows: int | None = None

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

    def given(self, y: Any = None, exposure: Any = None) -> "ConditionedVAE":
        """The pair for known covariates: p(z|y) p(x|z, y) and q(z|x, y), with the weights of this pair.

        ``y`` are labels (N,) or numbers (N, C) as the model was trained with, or one row for all data; ``exposure``
        (N,) multiplies the rates of counts. The result can be used wherever a VAE can.
        Raises :class:`~probvae.errors.DataError` for a label that training has not seen.
        """
        first = next(self.parameters())
        columns = None if y is None else self._encoded(y).to(first)
        if exposure is not None:
            check_no_mask(exposure, "exposure")
            exposure = (
                exposure if isinstance(exposure, Tensor) else np.array(exposure)
            )  # torch takes no negative stride
            exposure = torch.as_tensor(exposure, dtype=first.dtype, device=first.device).reshape(-1, 1)
            self.model.likelihood.check_exposure(exposure)
        return ConditionedVAE(self, columns, exposure)

    def _encoded(self, y: Any) -> Tensor:
        if self.model.covariates is None:
            raise ArgumentError("y: this model is not conditional. Leave it out, or build it with covariates=...")
        return self.model.covariates.encode(y)

    def at(self, rows: slice | Tensor) -> "VAE":
        """The pair for ``rows`` (n,) of the data, or a slice: itself, because nothing in it belongs to a datum."""
        return self

    def groups(self, num_data: int) -> list[Tensor] | None:
        """The row numbers (n,) of data with equal covariates, group by group; None where all data have the same.

        Methods that evaluate the model at one z for many data take one group at a time, and ``vae.at(group[:1])``.
        """
        return None

    @property
    def columns(self) -> list[Tensor]:
        """Covariates and exposure of the data, each (N, C) or (1, C); empty unless :meth:`given` was called."""
        return []

    def with_columns(self, columns: Sequence[Tensor]) -> "VAE":
        """The same weights with other :attr:`columns`, each (N, C) or (1, C), as many as there are."""
        if columns:
            raise ArgumentError("columns: this pair has none. Call given(y) first.")
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
        """The text that :meth:`save` writes beside the weights: format, version, and the components as TOML."""
        return file_metadata(self.components())

    @classmethod
    def load(cls, path: str | Path) -> "VAE":
        """Read what :meth:`save` wrote; the outputs are the same bit for bit.

        Raises :class:`~probvae.errors.RunError` for a file that is not there, damaged, or not ours.
        """
        stored = read_model(Path(path))
        with bounded_build(stored.path, stored.weights):
            vae = cls.from_components(stored.components)
        check_finite_weights(stored, vae.model, vae.guide)
        try:
            vae.to(next(tensor.dtype for tensor in stored.weights.values() if tensor.is_floating_point()))
            vae.load_state_dict(stored.weights)
        except (RuntimeError, StopIteration) as error:
            raise RunError(f"{path}: the weights do not fit the components ({error}).") from error
        return vae.eval()  # a stored VAE is read for its results, and dropout belongs to training

    def components(self) -> dict[str, Any]:
        """The registered names and options of all parts, as plain data."""
        return describe_pair(self.model, self.guide)

    @classmethod
    def from_components(cls, components: dict[str, Any]) -> "VAE":
        """The inverse of :meth:`components`, with fresh weights."""
        return cls(*build_pair(components))

    @classmethod
    def example(cls) -> "VAE":
        """A small instance (data_dim 3, latent_dim 2)."""
        model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3))
        return cls(model, DiagonalGuide(MLPEncoder(3, hidden=(5,)), 2))


class ConditionedVAE(VAE):
    """A VAE for known covariates, made by :meth:`VAE.given`; it shares the weights of that VAE.

    ``num_rows`` is the number of data that the covariates are for; None if they are the same for all data.
    """

    def __init__(self, vae: VAE, y: Tensor | None, exposure: Tensor | None) -> None:
        model = vae.model.with_columns(y, exposure)
        super().__init__(model, _conditioned_guide(vae, model, y))
        lengths = {len(value) for value in (y, exposure) if value is not None and len(value) > 1}
        if len(lengths) > 1:
            raise ShapeError(f"exposure: expected one for each row of y, got {sorted(lengths)} rows. Pass both whole.")
        self.num_rows = lengths.pop() if lengths else None
        # nn.Module does not look into a tuple: the weights are registered with model and guide already
        self._whole = (vae, y, exposure)

    def _apply(self, fn: Any, recurse: bool = True) -> "ConditionedVAE":
        super()._apply(fn, recurse)
        vae, y, exposure = self._whole
        self._whole = (vae, y if y is None else fn(y), exposure if exposure is None else fn(exposure))
        return self

    def at(self, rows: slice | Tensor) -> VAE:
        """The pair for ``rows`` (n,) of the data, or a slice."""
        vae, y, exposure = self._whole
        return ConditionedVAE(vae, _at_rows(y, rows), _at_rows(exposure, rows))

    def groups(self, num_data: int) -> list[Tensor] | None:
        if self.num_rows is None:
            return None
        columns = [value.expand(num_data, -1) for value in self.columns]
        position = torch.cat(columns, dim=1).unique(dim=0, return_inverse=True)[1]
        return [(position == group).nonzero()[:, 0] for group in range(int(position.max()) + 1)]

    @property
    def columns(self) -> list[Tensor]:
        return [value for value in self._whole[1:] if value is not None]

    def with_columns(self, columns: Sequence[Tensor]) -> "ConditionedVAE":
        vae, y, exposure = self._whole
        others = iter(columns)
        return ConditionedVAE(vae, y if y is None else next(others), exposure if exposure is None else next(others))

    def components(self) -> dict[str, Any]:
        raise ConfigError(
            "vae: expected the conditional VAE, got one for given y. Save the VAE that given() was called on."
        )


def in_double(vae: VAE, x: Tensor) -> tuple[VAE, Tensor]:
    """A copy of the pair in float64 with ``x`` (N, D) in float64; both as they are where that is their dtype already.

    What is subtracted from a truth in float64 is computed with it: a float32 log p(x|z) of thousands of nats has a
    rounding that would be taken for a gap. A program written by hand decides about its own dtype, and stays as it is.
    """
    if x.dtype == torch.float64 or vae.model.keeps_dtype:
        return vae, x
    return deepcopy(vae).double(), x.double()


def load(path: str | Path) -> VAE:
    """The fitted VAE of a run folder (or of a file that :meth:`VAE.save` wrote).

    Nothing in the folder can execute code, nothing outside of it is read, and what it makes is no larger than its
    weights call for. Raises :class:`~probvae.errors.RunError` when there is no run, it is damaged, a file in it is a
    link, or a later version of the package wrote it.
    """
    return VAE.load(model_path(Path(path)))


@contextmanager
def frozen(vae: VAE) -> Iterator[None]:
    """No parameter takes a gradient inside the block, so that only z does."""
    parameters = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def check_data(vae: VAE, x: Tensor) -> None:
    """Raise unless ``x`` is (N, D), finite (but for missing entries), and within the likelihood's support."""
    check_matrix(x, vae.model.data_dim)
    check_num_rows(vae, len(x))
    vae.model.likelihood.check_data(x)


def check_supports(p: Distribution, q: Distribution) -> None:
    """Raise where q_x has no density, or reaches over all of R^d and the prior does not: the KL would be infinite."""
    check_has_density(q)
    if _unbounded(q) and not _unbounded(p):
        raise ArgumentError(
            f"guide: expected q_x inside the prior's support ({p.support}), got one that reaches beyond it. Use "
            "ConstrainedGuide(guide, low, high)."
        )


def _unbounded(p: Distribution) -> bool:
    if isinstance(
        p, TransformedDistribution
    ):  # the codomain of an affine map is the real numbers, whatever its domain is
        return not any(_base(transform.codomain) is not type(constraints.real) for transform in p.transforms)
    return _base(p.support) is type(constraints.real)


def _base(support: Any) -> type:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return type(support)


def check_num_rows(vae: VAE, num_data: int) -> None:
    """Raise unless the covariates of a conditional model are known, for ``num_data`` data or for all alike."""
    vae.model.check_conditioned()
    if vae.num_rows not in (None, num_data):
        raise ShapeError(
            f"y: expected covariates for {num_data} data, got {vae.num_rows} rows. Give one row a datum, or one for "
            "all."
        )


def _at_rows(values: Tensor | None, rows: slice | Tensor) -> Tensor | None:
    return values if values is None or len(values) == 1 else values[rows]


def _conditioned_guide(vae: VAE, model: LatentModel, y: Tensor | None) -> Guide:
    if isinstance(vae.guide, ExactGuide):
        return ExactGuide(model, vae.guide.detach)
    return vae.guide if y is None else conditioned(vae.guide, y)


def _check_mask_is_read(model: LatentModel, guide: Guide) -> None:
    encoder = getattr(guide, "encoder", None)
    if model.missing == "mask" and isinstance(encoder, Encoder) and not isinstance(encoder, MaskedEncoder):
        raise ConfigError(
            f"guide: with missing='mask' the encoder must read the mask, and {type(encoder).__name__} does not. "
            "Wrap it: MaskedEncoder(encoder, data_dim), with an encoder built for twice the columns."
        )
