"""The state of a fit: all that its next step depends on, and the record of the steps before."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from probvae.errors import RunError
from probvae.foundation.adam import Adam
from probvae.inference.pair import VAE
from probvae.inference.training.minibatches import Minibatches

# The numbers of a saved state that are not tensors: the types that each may have
_SCALARS: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "totals": (list,),
    "skipped": (dict,),
    "best": (int, float, type(None)),
    "best_epoch": (int,),
    "path": (str,),
}


class StepFailure(NamedTuple):
    """A step that could not be taken: its place, and the reason.

    >>> str(StepFailure("x", 2, 7, "the loss is nan"))
    "site 'x', epoch 2, batch 7: the loss is nan"
    """

    site: str
    epoch: int
    batch: int
    reason: str

    def __str__(self) -> str:
        return f"site {self.site!r}, epoch {self.epoch}, batch {self.batch}: {self.reason}"


@dataclass
class SkippedSteps:
    """The number of steps that were not taken because their loss or gradient was not finite.

    ``rows`` has the first and the latest step that began a row of them.
    """

    total: int = 0
    in_epoch: int = 0
    in_a_row: int = 0
    rows: list[StepFailure] = field(default_factory=list)

    def add(self) -> None:
        """Count one more."""
        self.total, self.in_epoch, self.in_a_row = self.total + 1, self.in_epoch + 1, self.in_a_row + 1

    def begin_row(self, failure: StepFailure) -> None:
        """Note the next step to count as the first of a row, because the step before it was taken."""
        self.rows = [*self.rows[:1], failure]

    @classmethod
    def from_scalars(cls, scalars: Mapping[str, Any]) -> Self:
        """Build it from what ``asdict`` gave, after JSON."""
        return cls(**{**scalars, "rows": [StepFailure(*row) for row in scalars["rows"]]})


class SavedState(NamedTuple):
    """A state after ``epoch`` epochs and ``batch`` minibatches of the next.

    ``weights`` belong to the model; ``tensors`` to optimiser, order, generators and records, by name; ``scalars`` are
    numbers and text that JSON can hold. The tensors may share their memory with the fit.
    """

    epoch: int
    batch: int
    weights: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, Any]


@dataclass
class FitState:
    """All that a fit changes from step to step.

    ``epoch`` counts whole epochs, and ``step`` all steps, skipped ones too. ``totals`` are the sums of loss,
    KL and ELBO over the epoch's rows so far, and the number of these rows. ``best`` is the best validation bound,
    ``best_weights`` are the weights to keep, from the end of ``best_epoch``. ``history`` has a record of each epoch,
    and ``lines`` the same as text without the time. ``path`` is the name of the path that the steps take.
    """

    vae: VAE
    optimizer: Adam
    minibatches: Minibatches
    device: torch.device
    path: str = ""
    epoch: int = 0
    step: int = 0
    totals: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0])
    skipped: SkippedSteps = field(default_factory=SkippedSteps)
    best: float | None = None
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.best_weights = self.copied_weights()

    def copied_weights(self) -> dict[str, Tensor]:
        """The weights and buffers of now, in memory of their own."""
        return {name: tensor.clone() for name, tensor in self.vae.state_dict().items()}

    def keep_weights(self) -> None:
        """Note the weights of now, at the end of an epoch, as the ones to keep."""
        self.best_weights, self.best_epoch = self.copied_weights(), self.epoch

    def add_record(self, record: dict[str, Any]) -> None:
        """Append the ``record`` of an epoch to the history; its line lacks the time, which differs from run to run."""
        self.history.append(record)
        timeless = {name: value for name, value in record.items() if name != "seconds"}
        self.lines.append(json.dumps(timeless, allow_nan=False))

    def state_dict(self) -> SavedState:
        """The state as tensors and scalars, from which :meth:`load_state_dict` goes on bit for bit."""
        order = self.minibatches.state()
        tensors = {
            **_grouped("optimizer", self.optimizer.state_dict()),
            **_grouped("random", _generators(self.device)),
            **({"order": order["drawn"]} if "drawn" in order else {}),
            **_grouped("history", self._packed_history()),
        }
        weights = self.best_weights
        if self.best_epoch != self.epoch or order["position"]:
            weights, tensors = self.vae.state_dict(), {**tensors, **_grouped("good", self.best_weights)}
        scalars = {
            "step": self.step,
            "totals": self.totals,
            "skipped": asdict(self.skipped),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "path": self.path,
        }
        return SavedState(self.epoch, order["position"], weights, tensors, scalars)

    def load_state_dict(self, saved: SavedState) -> None:
        """Go on where ``saved`` was taken; torch's generators go there too. The path of this fit stays.

        Raises :class:`~probvae.errors.RunError` unless ``saved`` is a state of a fit of the same model.
        """
        parts = {group: _group(group, saved.tensors) for group in ("good", "optimizer", "random", "history")}
        weights = self.vae.state_dict()
        _check_tensors("weights", saved.weights, weights)
        _check_tensors("best weights", parts["good"] or weights, weights)
        _check_tensors("optimizer", parts["optimizer"], self.optimizer.state_dict())
        _check_tensors("random", {"cpu": parts["random"].get("cpu", torch.empty(0))}, _generators(torch.device("cpu")))
        skipped = _check_scalars(saved.scalars)
        records = _unpacked_history(parts["history"])
        try:
            self.minibatches.restore({"position": saved.batch, "drawn": saved.tensors.get("order")})
        except ValueError as error:
            raise RunError(f"order: {error}") from error
        self.vae.load_state_dict(dict(saved.weights))
        self.best_weights = parts["good"] or self.copied_weights()
        self.optimizer.load_state_dict(parts["optimizer"])
        self.epoch, self.step, self.totals = saved.epoch, saved.scalars["step"], saved.scalars["totals"]
        self.best, self.best_epoch, self.skipped = saved.scalars["best"], saved.scalars["best_epoch"], skipped
        self.history, self.lines = [], []
        for record in records:
            self.add_record(record)
        _set_generators(parts["random"], self.device)

    def _packed_history(self) -> dict[str, Tensor]:
        """The records as bytes and numbers, because JSON would escape their quotes, twice, at every checkpoint."""
        return {
            "lines": torch.from_numpy(np.frombuffer("\n".join(self.lines).encode(), np.uint8).copy()),
            "seconds": torch.tensor([record["seconds"] for record in self.history], dtype=torch.float64),
        }


class StateListener:
    """Hears of a fit's state on the way; this one does nothing. A listener is open inside its ``with`` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, state: FitState, reason: str) -> None:
        """The first step is about to be taken. ``reason`` says why the steps take their path."""

    def after_step(self, state: FitState) -> None:
        """A step was taken, and more of its epoch are to come."""

    def after_epoch(self, state: FitState) -> None:
        """An epoch is done, and on record."""

    def end(self, state: FitState) -> None:
        """No step is to come, be it because the loss stays infinite; the weights to keep are in the VAE."""


def _unpacked_history(history: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    if history.keys() != {"lines", "seconds"}:
        raise RunError(f"history: expected tensors lines and seconds, got {', '.join(history) or 'none'}")
    lines, seconds = history["lines"], history["seconds"]
    if lines.dtype != torch.uint8 or lines.ndim != 1 or seconds.dtype != torch.float64 or seconds.ndim != 1:
        raise RunError("history: expected bytes and one number an epoch, got tensors of other kinds")
    try:
        records = [json.loads(text) for text in lines.numpy().tobytes().decode().splitlines()]
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or brackets without an end
        raise RunError(f"history: expected a line of JSON for each epoch, got text that is none ({error})") from error
    if len(records) != len(seconds) or not all(isinstance(record, dict) for record in records):
        raise RunError(f"history: expected {len(seconds)} records, got {len(records)}")
    return [{**record, "seconds": time} for record, time in zip(records, seconds.tolist(), strict=True)]


def _check_tensors(what: str, got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name in sorted(expected.keys() | got.keys()):
        if name not in got or name not in expected:
            raise RunError(
                f"{what}: expected the tensors of this fit, got {'no' if name in expected else 'a'} {name!r}"
            )
        ours, theirs = expected[name], got[name]
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            raise RunError(
                f"{what}: expected {name!r} of shape {tuple(ours.shape)} and {ours.dtype}, got {tuple(theirs.shape)} "
                f"and {theirs.dtype}"
            )


def _check_scalars(scalars: Mapping[str, Any]) -> SkippedSteps:
    """Raise unless all scalars are there and of their types; the steps that were skipped come out as an object."""
    for name, types in _SCALARS.items():
        value = scalars.get(name, "nothing")
        if not isinstance(value, types) or isinstance(value, bool):
            raise RunError(f"{name}: expected {' or '.join(kind.__name__ for kind in types)}, got {value!r}")
    if len(scalars["totals"]) != 4 or not all(isinstance(total, int | float) for total in scalars["totals"]):
        raise RunError(f"totals: expected four numbers, got {scalars['totals']!r}")
    try:
        skipped = SkippedSteps.from_scalars(scalars["skipped"])
    except (KeyError, TypeError) as error:  # other names, or rows that are no lists of four
        raise RunError(f"skipped: expected counts of steps, got {scalars['skipped']!r}") from error
    if not all(isinstance(count, int) for count in (skipped.total, skipped.in_epoch, skipped.in_a_row)):
        raise RunError(f"skipped: expected counts of steps, got {scalars['skipped']!r}")
    return skipped


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    try:
        torch.set_rng_state(states["cpu"])
        if device.type == "cuda" and "cuda" in states:  # a fit on the CPU may go on elsewhere
            torch.cuda.set_rng_state(states["cuda"], device)
    except RuntimeError as error:  # torch looks into the numbers of a generator
        raise RunError(f"random: expected the state of torch's generators, got other numbers ({error})") from error


def _grouped(group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{group}.{name}": tensor for name, tensor in tensors.items()}


def _group(group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{group}."): part for name, part in tensors.items() if name.startswith(f"{group}.")}
