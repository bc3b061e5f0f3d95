"""The data of a fit before its first step: checked, in the dtype of the parameters, the validation data set aside."""

from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from probvae.errors import ArgumentError, DataError
from probvae.foundation.checks import check_matrix, non_finite_rows
from probvae.inference.pair import VAE, check_data, check_num_rows
from probvae.inference.training.minibatches import Blocks, Data, DrawnOnce, Source, TensorSource, as_source
from probvae.inference.training.options import FitOptions


class TrainingData(NamedTuple):
    """The pair for the data ``x`` (with its covariates given), and the same for the validation data."""

    vae: VAE
    x: Source
    validation_vae: VAE
    validation: Blocks | None


def check_and_split(vae: VAE, given: VAE, x: Data, options: FitOptions) -> TrainingData:
    """Check the data and take the validation data out, in the dtype of the parameters.

    ``given`` is the ``vae`` with the data's covariates, where it has any.
    """
    dtype = next(chain(vae.guide.parameters(), vae.model.parameters())).dtype  # an exact guide has none
    source = as_source(x, dtype)
    check_matrix(source.head(1), vae.model.data_dim)
    fresh, validation = options.binarization == "fresh", options.validation
    # checked before it is split and shuffled: a message names a row of the caller's data
    _check_rows(given, source, "x", fresh)
    prepared = TrainingData(given, source, given, None)
    if validation is not None and not isinstance(validation, int | float):
        prepared = TrainingData(given, source, vae, _given_validation(vae, given, validation, dtype, fresh))
    elif validation is not None:
        train, held_out = _split(source, validation, options.seed)
        prepared = TrainingData(given.at(train), source.take(train), given.at(held_out), source.take(held_out))
    if fresh and prepared.validation is not None:
        prepared = prepared._replace(validation=_drawn(prepared.validation, options.seed))
    _check_enough(prepared.x, options.batch_size)
    return prepared


def _given_validation(vae: VAE, given: VAE, validation: Data, dtype: torch.dtype, fresh: bool) -> Source:
    source = as_source(validation, dtype, "validation")
    check_matrix(source.head(1), vae.model.data_dim, "validation")
    if given is not vae:
        raise ArgumentError("validation: data of their own have no covariates here. Pass the share to set aside, 0.1.")
    _check_rows(vae, source, "validation", fresh)
    return source


def _drawn(validation: Blocks, seed: int) -> Blocks:
    once = DrawnOnce(validation, seed)
    return TensorSource(next(once.blocks())[1]) if isinstance(validation, TensorSource) else once


def _check_rows(vae: VAE, source: Source, name: str, fresh: bool) -> None:
    """Raise unless all data are in the likelihood's support; grey ones, where they are binarised later."""
    check_num_rows(vae, len(source))
    masked = vae.model.missing == "mask" and not fresh
    bad: list[Tensor] = []
    for rows, x in source.blocks():
        unusable = ~(x.isfinite() | x.isnan() if masked else x.isfinite()).all(1)
        if unusable.any():
            bad.append((rows.start or 0) + unusable.nonzero()[:, 0])
        elif not bad:
            _check_block(vae.at(rows), x, name, fresh)
    if bad:
        raise non_finite_rows(torch.cat(bad), len(source), name)


def _check_block(vae: VAE, x: Tensor, name: str, fresh: bool) -> None:
    try:
        if fresh:
            _check_grey(x)
        # once binarised, one row is as good as another
        check_data(vae.at(slice(1)), x[:1].round()) if fresh else check_data(vae, x)
    except DataError as error:
        # a likelihood does not know what its data are called here
        raise type(error)(f"{name}: {str(error).removeprefix('x: ')}") from error


def _check_grey(x: Tensor) -> None:
    if x.min() < 0 or x.max() > 1:
        raise DataError("x: binarization='fresh' needs values in [0, 1]. Scale the data (scaling='unit').")


def _split(source: Source, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """The rows to train on, and those to set aside."""
    num = max(1, round(share * len(source)))
    if num >= len(source):
        raise ArgumentError(
            f"validation: a share of {share:g} leaves none of the {len(source)} rows to train on. Lower it."
        )
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    train, held_out = order[num:], order[:num]
    if isinstance(source, TensorSource):
        return train, held_out
    return train.sort().values, held_out.sort().values  # what are neighbours in a file are read together


def _check_enough(x: Source, batch_size: int) -> None:
    if len(x) < batch_size:
        raise DataError(
            f"x: expected at least batch_size={batch_size} rows to train on, got {len(x)}. Use batch_size={len(x)}."
        )
    first = x.head(1)
    if all((rows == first).all() for _, rows in x.blocks()):
        raise DataError("x: all rows are the same, so there is nothing to learn. Check the file and the scaling.")
