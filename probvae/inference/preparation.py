"""What a fit checks and does before its first step: options, dtype, validation split."""

from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from probvae._shapes import check_count, check_finite, check_matrix, check_positive
from probvae.errors import ArgumentError, DataError, unknown_name
from probvae.inference.evaluation import ModelAndGuide, at_rows, check_data

SCHEDULES = {
    "constant": "the same learning rate in every step",
    "cosine": "from the learning rate down to zero along half a cosine",
}


@dataclass(frozen=True)
class FitOptions:
    """How :func:`fit` trains; its docstring says what each means."""

    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: str = "constant"
    gradient_clip: float | None = None
    patience: int | None = None
    kl_warmup: int = 0
    binarization: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        check_count(self.epochs, "epochs")
        check_count(self.batch_size, "batch_size")
        check_count(self.seed, "seed", least=0)
        check_positive(self.learning_rate, "learning_rate")
        if self.schedule not in SCHEDULES:
            raise unknown_name("schedule", self.schedule, SCHEDULES)
        if self.gradient_clip is not None:
            check_positive(self.gradient_clip, "gradient_clip")
        if self.patience is not None:
            check_count(self.patience, "patience")
        check_count(self.kl_warmup, "kl_warmup", least=0)
        if self.kl_warmup >= self.epochs > 1:
            raise ArgumentError(
                f"kl_warmup: expected fewer than epochs={self.epochs}, got {self.kl_warmup}: the fit would end before "
                "the KL has its weight. Lower it, or raise epochs."
            )
        if self.binarization not in ("none", "fresh"):
            raise unknown_name("binarization", self.binarization, ["none", "fresh"])


class Prepared(NamedTuple):
    """The pair for the data ``x`` (with its covariates given), and the same for the validation data."""

    vae: ModelAndGuide
    x: Tensor
    validation_vae: ModelAndGuide
    validation: Tensor | None


def prepare(
    vae: ModelAndGuide, given: ModelAndGuide, x: Tensor, validation: Tensor | float | None, options: FitOptions
) -> Prepared:
    """Check the data and take the validation data out, in the dtype of the parameters.

    ``given`` is the ``vae`` with the data's covariates, where it has any.
    """
    check_matrix(x, vae.model.data_dim)
    dtype = next(chain(vae.guide.parameters(), vae.model.parameters())).dtype  # an exact guide has none
    if options.patience is not None and validation is None:
        raise ArgumentError("patience: expected validation data to watch, got none. Pass validation=0.1.")
    fresh = options.binarization == "fresh"
    # checked before it is split and shuffled: a message names a row of the caller's data
    x = _checked(given, x.to(dtype), "x", fresh)
    prepared = Prepared(given, x, given, None)
    if isinstance(validation, Tensor):
        prepared = Prepared(given, x, vae, _given_validation(vae, given, validation, dtype, fresh))
    elif validation is not None:
        train, held_out = _split(len(x), validation, options.seed, x.device)
        prepared = Prepared(at_rows(given, train), x[train], at_rows(given, held_out), x[held_out])
    if fresh and prepared.validation is not None:
        generator = torch.Generator(x.device).manual_seed(options.seed)
        prepared = prepared._replace(validation=torch.bernoulli(prepared.validation, generator=generator))
    _check_enough(prepared.x, options.batch_size)
    return prepared


def _given_validation(
    vae: ModelAndGuide, given: ModelAndGuide, validation: Tensor, dtype: torch.dtype, fresh: bool
) -> Tensor:
    check_matrix(validation, vae.model.data_dim, "validation")
    if given is not vae:
        raise ArgumentError("validation: data of their own have no covariates here. Pass the share to set aside, 0.1.")
    return _checked(vae, validation.to(dtype), "validation", fresh)


def _checked(vae: ModelAndGuide, x: Tensor, name: str, fresh: bool) -> Tensor:
    """The data, once they are known to lie in the likelihood's support; grey ones, where they are binarised later."""
    try:
        if fresh:
            check_finite(x)
            _check_grey(x)
        # once binarised, one row is as good as another
        check_data(at_rows(vae, slice(1)), x[:1].round()) if fresh else check_data(vae, x)
    except DataError as error:
        # a likelihood does not know what its data are called here
        raise type(error)(f"{name}: {str(error).removeprefix('x: ')}") from error
    return x


def _check_grey(x: Tensor) -> None:
    if x.min() < 0 or x.max() > 1:
        raise DataError("x: binarization='fresh' needs values in [0, 1]. Scale the data (scaling='unit').")


def _split(num_data: int, share: float, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rows to train on, and those to set aside."""
    if not isinstance(share, int | float) or not 0 < share < 1:
        raise ArgumentError(f"validation: expected a share between 0 and 1, or data (M, D), got {share!r}.")
    num = max(1, round(share * num_data))
    if num >= num_data:
        raise ArgumentError(
            f"validation: a share of {share:g} leaves none of the {num_data} rows to train on. Lower it."
        )
    order = torch.randperm(num_data, generator=torch.Generator().manual_seed(seed)).to(device)
    return order[num:], order[:num]


def _check_enough(x: Tensor, batch_size: int) -> None:
    if len(x) < batch_size:
        raise DataError(
            f"x: expected at least batch_size={batch_size} rows to train on, got {len(x)}. Use batch_size={len(x)}."
        )
    if (x == x[0]).all():
        raise DataError("x: all rows are the same, so there is nothing to learn. Check the file and the scaling.")
