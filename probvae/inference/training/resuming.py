"""The state of a fit as a checkpoint, and back."""

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probvae.errors import ArgumentError, CheckpointWarning, ProbvaeError, RunError
from probvae.inference.training.checkpoints import Checkpoint
from probvae.inference.training.skipped_steps import SkippedSteps
from probvae.storage.untrusted import parse_object

if TYPE_CHECKING:
    from probvae.inference.training.loop import Trainer

# Of what is in a checkpoint. It is another one than that of a run, which is read for years: a checkpoint is for days.
_FORMAT = 2
# Attributes of the trainer that are plain numbers
_NUMBERS = ("totals", "best", "good_epoch")


def constant_part(trainer: "Trainer") -> dict[str, str]:
    """What all checkpoints of a fit have in common, as text."""
    return {**trainer.vae.metadata(), "fit": json.dumps(_description(trainer))}


def checkpoint_of(trainer: "Trainer", batch: int, lines: Sequence[str], constant: Mapping[str, str]) -> Checkpoint:
    """All that the steps after ``batch`` minibatches of the epoch depend on.

    ``lines`` are the records of the epochs before, and ``constant`` is :func:`constant_part`: texts that are made once
    and not at every checkpoint.
    """
    feeder = trainer.steps.feeder.state()
    tensors = {
        **_named("optimizer", trainer.steps.optimizer.state_dict()),
        **_named("random", _generators(trainer.x.device)),
        **({"order": feeder["drawn"]} if "drawn" in feeder else {}),
        **_named("history", _history(trainer, lines)),
    }
    weights = trainer.good_state
    if trainer.good_epoch != trainer.epoch or batch:
        weights, tensors = trainer.vae.state_dict(), {**tensors, **_named("good", trainer.good_state)}
    numbers = {
        **{name: getattr(trainer, name) for name in _NUMBERS},
        "step": trainer.steps.num_done,
        "skipped": trainer.skipped.numbers(),
        "best_epoch": trainer.result.best_epoch,
        "path": trainer.result.path,
        "format": _FORMAT,
    }
    return Checkpoint(trainer.epoch, batch, weights, constant, tensors, numbers)


def restore(trainer: "Trainer", checkpoint: Checkpoint) -> None:
    """Put the trainer, and torch's generators, where they were.

    Raises :class:`~probvae.errors.ArgumentError` where the fit is another one than the checkpoint's, and
    :class:`~probvae.errors.RunError` where the checkpoint holds something else than the state of a fit.
    """
    try:
        _restore(trainer, checkpoint)
    except ProbvaeError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"checkpoint {checkpoint.name}: holds something else than the state of this fit "
            f"({type(error).__name__}: {error}). Remove it to go on from the one before."
        ) from error


def _restore(trainer: "Trainer", checkpoint: Checkpoint) -> None:
    numbers, tensors = checkpoint.numbers, checkpoint.tensors
    if numbers.get("format") != _FORMAT:
        raise RunError(
            f"checkpoint {checkpoint.name}: expected format {_FORMAT}, got {numbers.get('format')}: another version of "
            "probvae wrote it. Resume the fit with that version, or fit anew."
        )
    _check_same(parse_object(checkpoint.metadata["fit"], checkpoint.name), _description(trainer))
    if numbers["path"] != trainer.result.path:
        warnings.warn(
            f"resume: the steps so far took the {numbers['path']} path, here it is {trainer.result.path} "
            f"({trainer.result.path_reason}): the numbers may differ in their last digits.",
            CheckpointWarning,
            stacklevel=4,
        )
    trainer.vae.load_state_dict(dict(checkpoint.weights))
    trainer.good_state = _part("good", tensors) or trainer.snapshot()
    trainer.steps.optimizer.load_state_dict(_part("optimizer", tensors))
    trainer.steps.feeder.restore({"position": checkpoint.batch, "drawn": tensors.get("order")})
    for name in _NUMBERS:
        setattr(trainer, name, numbers[name])
    trainer.epoch, trainer.steps.num_done = checkpoint.epoch, numbers["step"]
    trainer.skipped = SkippedSteps.of(numbers["skipped"])
    trainer.result.history = _records(**_part("history", tensors))
    trainer.result.best_epoch = numbers["best_epoch"]
    _set_generators(_part("random", tensors), trainer.x.device)


def _history(trainer: "Trainer", lines: Sequence[str]) -> dict[str, Tensor]:
    """The records as bytes and numbers: as text in JSON their quotes would be escaped, twice, at every checkpoint."""
    return {
        "lines": torch.from_numpy(np.frombuffer("\n".join(lines).encode(), np.uint8).copy()),
        "seconds": torch.tensor([record["seconds"] for record in trainer.result.history], dtype=torch.float64),
    }


def _records(lines: Tensor, seconds: Tensor) -> list[dict[str, Any]]:
    texts = lines.numpy().tobytes().decode().splitlines()
    return [{**json.loads(text), "seconds": time} for text, time in zip(texts, seconds.tolist(), strict=True)]


def _description(trainer: "Trainer") -> dict[str, Any]:
    """What has to be the same when a fit is resumed."""
    objective = trainer.steps.objective
    found = {
        **trainer.options.fixed(),
        "num_data": len(trainer.x),
        "objective": {"name": objective.registered_name, **objective.arguments},
        "dtype": str(trainer.x.dtype),
    }
    same: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return same


def _check_same(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in then.keys() | now.keys():
        if then.get(name) != now.get(name):
            raise ArgumentError(
                f"resume: the run was begun with {name}={then.get(name)!r}, got {now.get(name)!r}. A run goes on with "
                "the options that it was begun with; leave out resume to fit anew."
            )


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _named(group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{group}.{name}": tensor for name, tensor in tensors.items()}


def _part(group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{group}."): part for name, part in tensors.items() if name.startswith(f"{group}.")}
