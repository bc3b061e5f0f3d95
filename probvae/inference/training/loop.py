"""The epochs of a fit: what is recorded, which weights are kept, and when it ends."""

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from probvae.errors import ArgumentError, ChangedDataError, FloorWarning, NonFiniteLossError, SkippedStepsWarning
from probvae.foundation.fit_options import FitOptions
from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.non_finite import TORCH_ERRORS, short_reason
from probvae.inference.evaluation.bounds import bound
from probvae.inference.evaluation.variance import (
    VARIANCE_SUBSET,
    floor_warning,
    outputs_for_variance,
    squared_error_sums,
)
from probvae.inference.objectives import Objective
from probvae.inference.pair import VAE
from probvae.inference.training.minibatches import Passes, Rows
from probvae.inference.training.processes import Processes
from probvae.inference.training.progress import EpochProgress
from probvae.inference.training.state import FitState, StateListener, StepFailure
from probvae.inference.training.steps import Minibatch, StepNumbers, Stepper
from probvae.inference.training.training_data import TrainingData
from probvae.models import GaussianLikelihood

_ADVICE = "Lower learning_rate (now {:g}), set gradient_clip, or rescale the data."


@dataclass
class FitResult:
    """The result of a fit: its history, and how it ended.

    ``history`` has one dict an epoch: ``epoch``, ``objective`` (what was maximised), ``elbo`` and ``kl`` (nats per
    datum, over the epoch's minibatches; the plain ones, whatever the objective is),
    ``variance`` (c in squared units of x, or None where there is none), ``seconds`` since the start, and
    ``validation_elbo``, ``validation_kl``, ``validation_standard_error`` where there are validation data;
    ``skipped_steps`` counts the steps that could not be taken, whose rows are not in these means.
    ``best_epoch`` is the epoch whose weights were kept, ``stopped`` says why the fit ended. ``path`` is the way that
    its steps took (``"pyro"``, ``"traced"``, ``"compiled"``: see :mod:`probvae.inference.compiled`), ``path_reason``
    says why. ``seconds_before`` is the time of the processes before this one, in a fit that was resumed.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = "all epochs done"
    path: str = "pyro"
    path_reason: str = ""
    seconds_before: float = 0.0


class Loop:
    """The epochs of one fit of ``vae`` to ``data``; ``listener`` hears of the state after steps and epochs."""

    def __init__(
        self,
        vae: VAE,
        data: TrainingData,
        objective: Objective,
        options: FitOptions,
        processes: Processes | None = None,
        listener: StateListener | None = None,
    ) -> None:
        self.vae, self.options, self.processes = vae, options, processes or Processes()
        self.listener = listener or StateListener()
        self.rows, self.validation, device = data.rows, data.validation, data.rows.device
        self.check_data = data.check_unchanged
        self.pair, self.validation_pair = data.pair.to(device), data.validation_pair.to(device)
        self.stepper = Stepper(vae, self.pair, len(self.rows), objective, options, self.processes)
        self.state = FitState(vae, self.stepper.optimizer, data.minibatches, device)

    def run(self, progress: bool = False) -> FitResult:
        """Take all steps that are to come, and leave the weights to keep in the VAE.

        Raises :class:`~probvae.errors.NonFiniteLossError`, with these weights in place, where too many steps fail, and
        :class:`~probvae.errors.ChangedDataError`, with those of the epoch before, where a file of data has changed.
        """
        try:
            return self._run(progress)
        except ChangedDataError as error:
            raise ChangedDataError(f"{error} {self._keep_good()}") from error

    def _run(self, progress: bool) -> FitResult:
        self._prepare()
        with closing(self.state.minibatches), EpochProgress(self.options.epochs, progress) as shown:
            before = self.state.history[-1]["seconds"] if self.state.history else 0.0
            start = time.perf_counter() - before
            while not (stopped := self._reason_to_stop()):
                record = {"epoch": self.state.epoch + 1, **self._epoch()}
                self.check_data()  # before anything of the epoch is kept
                record["seconds"] = round(time.perf_counter() - start, 4)
                record = self.processes.broadcast(record)
                self._keep(record)
                shown.update(record)
                self.listener.after_epoch(self.state)
        self.vae.load_state_dict(self.state.best_weights)
        self.listener.end(self.state)
        self.processes.end(self.vae.state_dict())
        if self.processes.is_writer:
            self._warn()
        step, state = self.stepper.step, self.state
        return FitResult(state.history, state.best_epoch, stopped, step.path, step.reason, before)

    def _prepare(self) -> None:
        """Refuse parts that do not fit together, choose the path of the steps, and tell the listener of the start."""
        self.vae.train(False)
        with isolated_seed(self.options.seed, self.state.device):
            self.stepper.dry_run(self.rows.head(2))
        self.vae.train()
        self.stepper.choose_step(self.rows)
        self.state.path = self.stepper.step.path
        self.vae.train(False)
        self.listener.begin(self.state, self.stepper.step.reason)

    def _reason_to_stop(self) -> str:
        since = self.state.epoch - max(self.state.best_epoch, self.options.kl_warmup)
        if self.options.patience and since >= self.options.patience:
            return f"no better validation ELBO for {self.options.patience} epochs"
        return "all epochs done" if self.state.epoch >= self.options.epochs else ""

    def minibatches(self) -> Iterator[Minibatch]:
        """This process's part of the minibatches of one epoch; each counts as a step once it was handed out."""
        self.processes.align_generators(self.state.device)
        for number, batch in enumerate(self.state.minibatches.epoch(), start=self.state.minibatches.position):
            mine = self.processes.my_slice(len(batch.rows))
            pair, rows = self.pair.at(batch.index[mine]), batch.rows[mine]
            yield Minibatch(pair, rows, number, len(batch.rows), self.state.step)

    def _epoch(self) -> dict[str, Any]:
        self.vae.train()
        state, last = self.state, None
        for batch in self.minibatches():
            step = self.stepper.take(batch)
            state.step += 1
            if step.taken:
                last = batch
                self._add(step, batch.num_rows)
                if batch.number + 1 < self.stepper.num_batches:
                    self.listener.after_step(state)
            else:
                self._skip(batch, step)
        self.vae.train(False)
        self.processes.align_generators(state.device)
        *sums, num_rows = state.totals
        if not num_rows:
            self._fail(state.skipped.rows[-1])
        loss, kl, elbo = (total / num_rows for total in sums)
        if last is not None:  # none where a fit was resumed, and the rest of its epoch skipped
            self._check_weights(last)
        record = {"objective": -loss, "elbo": elbo, "kl": kl, **self._evaluate(last or batch)}
        record["skipped_steps"] = state.skipped.in_epoch
        state.totals, state.skipped.in_epoch = [0.0, 0.0, 0.0, 0], 0
        return record

    def _add(self, step: StepNumbers, num_rows: int) -> None:
        """Add the losses of a step that was taken."""
        values = zip(self.state.totals, (step.loss, step.kl, step.elbo, 1), strict=True)
        self.state.totals = [total + num_rows * value for total, value in values]
        self.state.skipped.in_a_row = 0

    def _skip(self, batch: Minibatch, step: StepNumbers) -> None:
        skipped = self.state.skipped
        if not skipped.in_a_row:
            reason = "the gradient is not finite" if math.isfinite(step.loss) else f"the loss is {step.loss}"
            skipped.begin_row(self._failure(batch, reason))
        skipped.add()
        if skipped.in_a_row > self.options.max_skipped_steps:
            self._fail(skipped.rows[-1])

    def _check_weights(self, batch: Minibatch) -> None:
        """The last step's own loss was taken before it; weights are good only if theirs is finite too."""
        with isolated_seed(self.options.seed, self.state.device):
            loss = self.stepper.mean_loss(batch._replace(step=self.state.step))
        if not math.isfinite(loss):
            self._fail(self._failure(batch, f"after this step the loss is {loss}"))

    def _evaluate(self, batch: Minibatch) -> dict[str, Any]:
        """c and the validation bound at the weights that the epoch ended with."""
        try:
            set_optimal_variance(self.pair, self.rows, self.processes)
            validation = validation_bound(self.validation_pair, self.validation, self.processes)
            record = {"variance": mean_variance(self.pair, self.rows), **validation}
        except TORCH_ERRORS as error:
            if isinstance(error, ArgumentError):
                raise
            self._fail(self._failure(batch, short_reason(error)))
        for name, value in record.items():
            if value is not None and not math.isfinite(value):
                self._fail(self._failure(batch, f"after this step {name} is {value}"))
        return record

    def _keep(self, record: dict[str, Any]) -> None:
        self.state.epoch += 1
        self.state.add_record(record)
        if self._is_best(record):
            self.state.keep_weights()

    def _is_best(self, record: dict[str, Any]) -> bool:
        """True for weights to keep: the newest, or with ``patience`` those of the best validation ELBO."""
        if self.options.patience is None:
            return True
        if record["epoch"] < self.options.kl_warmup:
            return False  # the KL was not at its weight yet: another objective
        before = -math.inf if self.state.best is None else self.state.best
        self.state.best = max(record["validation_elbo"], before)
        return self.state.best > before

    def _warn(self) -> None:
        """Tell of skipped steps, and of a variance that ended on its floor."""
        skipped = self.state.skipped
        if skipped.rows:
            message = (
                f"{skipped.total} of {self.state.step} steps were skipped, the first at {skipped.rows[0]}. "
                f"{_ADVICE.format(self.options.learning_rate)}"
            )
            warnings.warn(message, SkippedStepsWarning, stacklevel=5)
        floor = floor_warning(self.pair, self.rows.head(VARIANCE_SUBSET))
        if floor:
            warnings.warn(floor, FloorWarning, stacklevel=5)

    def _failure(self, batch: Minibatch, reason: str) -> StepFailure:
        site, reason = self.stepper.failure(batch._replace(step=self.state.step), reason)
        return StepFailure(site, self.state.epoch + 1, batch.number + 1, reason)

    def _fail(self, failure: StepFailure) -> NoReturn:
        state = self.state
        skipped = f" ({state.skipped.in_a_row} steps in a row were skipped)" if state.skipped.in_a_row > 1 else ""
        kept, advice = self._keep_good(), _ADVICE.format(self.options.learning_rate)
        raise NonFiniteLossError(f"{failure}{skipped}. {kept} {advice}")

    def _keep_good(self) -> str:
        """Put the weights to keep in the VAE, and say which they are."""
        self.vae.load_state_dict(self.state.best_weights)
        self.listener.end(self.state)
        return f"The weights are {f'those after epoch {n}' if (n := self.state.best_epoch) else 'as before the fit'}."


def train(
    vae: VAE,
    data: TrainingData,
    objective: Objective,
    options: FitOptions,
    processes: Processes,
    listener: StateListener,
    progress: bool,
) -> FitResult:
    """All epochs of a :class:`Loop`."""
    return Loop(vae, data, objective, options, processes, listener).run(progress)


def set_optimal_variance(vae: VAE, rows: Rows, processes: Processes) -> None:
    """Give a likelihood with ``variance="optimal"`` the c that is best for all ``rows`` (N, D); others stay."""
    likelihood = vae.model.likelihood
    if isinstance(likelihood, GaussianLikelihood) and likelihood.mode == "optimal":
        parts = ((vae.at(places), block) for places, block in rows.blocks())
        error, num_observed = processes.sums(2, squared_error_sums, parts)
        likelihood.set_variance(error / num_observed)


@torch.no_grad()
def mean_variance(vae: VAE, rows: Rows) -> float | None:
    """c, averaged where there are several; None where there is none."""
    likelihood = vae.model.likelihood
    if not isinstance(likelihood, GaussianLikelihood):
        return None
    return float(likelihood.variance(outputs_for_variance(vae, rows.head(VARIANCE_SUBSET))).mean())


def validation_bound(vae: VAE, validation: Passes | None, processes: Processes) -> dict[str, float]:
    """The ELBO of the validation data with its standard error, and the KL, in nats per datum."""
    if validation is None:
        return {}
    parts = ((vae.at(places), x) for places, x in validation.blocks())
    num_data = len(validation)
    elbo, squared, kl = (total / num_data for total in processes.sums(3, _bound_sums, parts))
    variance = max(squared - elbo * elbo, 0.0)  # Python's power raises an error where the product is infinite
    return {
        "validation_elbo": elbo,
        "validation_kl": kl,
        "validation_standard_error": math.sqrt(variance / max(num_data - 1, 1)),
    }


def _bound_sums(vae: VAE, rows: Tensor) -> Tensor:
    """The sums (3,) of the ELBO, of its square and of the KL over ``rows`` (n, D)."""
    values = bound(vae, rows)
    elbo = values.elbo.double()
    return torch.stack([elbo.sum(), elbo.square().sum(), values.kl.double().sum()])
