"""What a fit checks and does before its first step: options, dtype, validation split."""

from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from probvae._shapes import check_count, check_matrix, check_positive
from probvae.errors import ArgumentError, DataError, unknown_name
from probvae.inference.evaluation import ModelAndGuide, check_data

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
        if self.binarization not in ("none", "fresh"):
            raise unknown_name("binarization", self.binarization, ["none", "fresh"])


def prepare(
    vae: ModelAndGuide, x: Tensor, validation: Tensor | float | None, options: FitOptions
) -> tuple[Tensor, Tensor | None]:
    """Check the data and take the validation data out, in the dtype of the parameters."""
    check_matrix(x, vae.model.data_dim)
    dtype = next(chain(vae.guide.parameters(), vae.model.parameters())).dtype  # an exact guide has none
    held_out: Tensor | None = None
    if isinstance(validation, Tensor):
        check_matrix(validation, vae.model.data_dim, "validation")
        train, held_out = x.to(dtype), validation.to(dtype)
    elif validation is not None:
        train, held_out = _split(x.to(dtype), float(validation), options.seed)
    else:
        train = x.to(dtype)
    if options.patience is not None and held_out is None:
        raise ArgumentError("patience: expected validation data to watch, got none. Pass validation=0.1.")
    if options.binarization == "fresh":
        train, held_out = _check_fresh(vae, train, held_out, options.seed)
    else:
        check_data(vae, train)
    if held_out is not None:
        check_data(vae, held_out)
    _check_enough(train, options.batch_size)
    return train, held_out


def _split(x: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    if not 0 < share < 1:
        raise ArgumentError(f"validation: expected a share between 0 and 1, or data (M, D), got {share:g}.")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    num = max(1, round(share * len(x)))
    return x[order[num:]], x[order[:num]]


def _check_fresh(vae: ModelAndGuide, train: Tensor, held_out: Tensor | None, seed: int) -> tuple[Tensor, Tensor | None]:
    """Grey data to be binarised at every use: the validation data are binarised here, once."""
    if train.min() < 0 or train.max() > 1:
        raise DataError("x: binarization='fresh' needs values in [0, 1]. Scale the data (scaling='unit').")
    generator = torch.Generator(train.device).manual_seed(seed)
    check_data(vae, torch.bernoulli(train[:1], generator=generator))
    return train, None if held_out is None else torch.bernoulli(held_out, generator=generator)


def _check_enough(x: Tensor, batch_size: int) -> None:
    if len(x) < batch_size:
        raise DataError(
            f"x: expected at least batch_size={batch_size} rows to train on, got {len(x)}. Use batch_size={len(x)}."
        )
    if (x == x[0]).all():
        raise DataError("x: all rows are the same, so there is nothing to learn. Check the file and the scaling.")
