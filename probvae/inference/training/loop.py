"""The epochs of a fit: what is recorded, which weights are kept, and when it ends."""

import math
import time
import warnings
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from probvae.errors import ArgumentError, FloorWarning, NonFiniteLossError, SkippedStepsWarning
from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.non_finite import TORCH_ERRORS, short_reason
from probvae.inference.evaluation.variance import VARIANCE_SUBSET, floor_warning
from probvae.inference.objectives import Objective
from probvae.inference.pair import VAE
from probvae.inference.training.checkpoints import Checkpoint
from probvae.inference.training.epoch_values import mean_variance, set_optimal_variance, validation_bound
from probvae.inference.training.options import FitOptions
from probvae.inference.training.processes import Ranks
from probvae.inference.training.progress import EpochProgress
from probvae.inference.training.saving import Saver, saving
from probvae.inference.training.skipped_steps import SkippedSteps, Trouble
from probvae.inference.training.steps import Minibatch, StepNumbers, Steps
from probvae.inference.training.training_data import TrainingData
from probvae.storage.run_folder import Run

_ADVICE = "Lower learning_rate (now {:g}), set gradient_clip, or rescale the data."


@dataclass
class FitResult:
    """What a fit gave.

    ``history`` has one dict an epoch: ``epoch``, ``objective`` (what was maximised), ``elbo`` and ``kl`` (nats per
    datum, over the epoch's minibatches; the plain ones, whatever the objective is),
    ``variance`` (c in squared units of x, or None where there is none), ``seconds`` since the start, and
    ``validation_elbo``, ``validation_kl``, ``validation_standard_error`` where there are validation data;
    ``skipped_steps`` counts those that could not be taken, whose data are not in these means.
    ``best_epoch`` is the epoch whose weights were kept, ``stopped`` says why the fit ended. ``path`` is the way that
    its steps took (``"plain"``, ``"graph"``, ``"compiled"``: see :mod:`probvae.inference.compiled`), ``path_reason``
    says why. ``seconds_before`` is the time of the processes before this one, in a fit that was resumed.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = "all epochs done"
    path: str = "plain"
    path_reason: str = ""
    seconds_before: float = 0.0


class Trainer:
    """The epochs of one fit: what is recorded, kept and told."""

    def __init__(
        self,
        vae: VAE,
        data: TrainingData,
        device: torch.device,
        objective: Objective,
        options: FitOptions,
        run: Run | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.vae, self.options, self.run_folder, self.ranks = vae, options, run, ranks or Ranks()
        # the VAE with the data's covariates given; itself, where it has none
        self.given, self.given_validation = (pair.to(device) for pair in (data.vae, data.validation_vae))
        self.x = data.x.to(device)
        self.validation = None if data.validation is None else data.validation.to(device)
        self.steps = Steps(vae, self.given, self.x, objective, options, self.ranks)
        # whole epochs that are done; the sums of this one's losses so far, and over how many data; the best bound
        self.epoch, self.totals = 0, [0.0, 0.0, 0.0, 0]
        self.best: float | None = None
        self.skipped = SkippedSteps()
        self.saver = Saver()
        self.result = FitResult()
        self.good_state, self.good_epoch = self.snapshot(), 0

    def rehearse(self) -> None:
        """Save and evaluate before anything is written: parts that do not fit together are refused here."""
        if self.run_folder is not None:
            self.vae.components()
        self.steps.rehearse()

    def open_run(self, resume: bool) -> None:
        """Note which path the steps take, and make the folder unless it is there."""
        self.result.path, self.result.path_reason, _ = self.steps.path
        if self.run_folder is not None and not resume:
            self.run_folder.add_to_environment({"path": self.result.path, "path_reason": self.result.path_reason})
            self.run_folder.create()

    def run(self, progress: bool, checkpoint: Checkpoint | None = None, seconds: float = math.inf) -> FitResult:
        """All epochs after ``checkpoint``, and the end; what it takes to resume is saved on the way."""
        with (
            saving(self.run_folder, self, checkpoint, seconds) as self.saver,
            EpochProgress(self.options.epochs, progress) as shown,
        ):
            self.result.seconds_before = self.result.history[-1]["seconds"] if self.result.history else 0.0
            start = time.perf_counter() - self.result.seconds_before
            while not self._is_over():
                record = {"epoch": self.epoch + 1, **self._epoch(), "seconds": round(time.perf_counter() - start, 4)}
                record = self.ranks.agreed(record)
                self.epoch += 1
                self._keep(record)
                shown.update(record)
                self.saver.after_epoch(self)
        self._finish()
        return self.result

    def _is_over(self) -> bool:
        since = self.epoch - max(self.result.best_epoch, self.options.kl_warmup)
        if self.options.patience and since >= self.options.patience:
            self.result.stopped = f"no better validation ELBO for {self.options.patience} epochs"
            return True
        return self.epoch >= self.options.epochs

    def _epoch(self) -> dict[str, Any]:
        self.vae.train()
        last = None
        for batch in self.steps.minibatches():
            step = self.steps.take(batch)
            if step.taken:
                last = batch
                self._add(step, self.steps.num_data(batch))
                if batch.number + 1 < self.steps.num_batches:
                    self.saver.after_step(self, batch.number + 1)
            else:
                self._skip(batch, step)
        self.vae.train(False)
        self.ranks.align_generators(self.x.device)
        *sums, num_data = self.totals
        if not num_data:
            self._fail(self.skipped.rows[-1])
        loss, kl, elbo = (total / num_data for total in sums)
        if last is not None:  # none where a fit was resumed, and the rest of its epoch skipped
            self._check_weights(last)
        record = {"objective": -loss, "elbo": elbo, "kl": kl, **self._evaluate(last or batch)}
        record["skipped_steps"] = self.skipped.in_epoch
        self.totals, self.skipped.in_epoch = [0.0, 0.0, 0.0, 0], 0
        return record

    def _add(self, step: StepNumbers, num_data: int) -> None:
        """A step that was taken."""
        values = zip(self.totals, (step.loss, step.kl, step.elbo, 1), strict=True)
        self.totals = [total + num_data * value for total, value in values]
        self.skipped.in_a_row = 0

    def _skip(self, batch: Minibatch, step: StepNumbers) -> None:
        if not self.skipped.in_a_row:
            reason = "the gradient is not finite" if math.isfinite(step.loss) else f"the loss is {step.loss}"
            self.skipped.begin_row(self._trouble(batch, reason))
        self.skipped.add()
        if self.skipped.in_a_row > self.options.max_skipped_steps:
            self._fail(self.skipped.rows[-1])

    def _check_weights(self, batch: Minibatch) -> None:
        """The last step's own loss was taken before it; weights are good only if theirs is finite too."""
        with isolated_seed(self.options.seed, self.x.device):
            loss = self.steps.mean_loss(batch)
        if not math.isfinite(loss):
            self._fail(self._trouble(batch, f"after this step the loss is {loss}"))

    def _evaluate(self, batch: Minibatch) -> dict[str, Any]:
        """c and the validation bound at the weights that the epoch ended with."""
        try:
            set_optimal_variance(self.given, self.x, self.ranks)
            validation = validation_bound(self.given_validation, self.validation, self.ranks)
            record = {"variance": mean_variance(self.given, self.x), **validation}
        except TORCH_ERRORS as error:
            if isinstance(error, ArgumentError):
                raise
            self._fail(self._trouble(batch, short_reason(error)))
        for name, value in record.items():
            if value is not None and not math.isfinite(value):
                self._fail(self._trouble(batch, f"after this step {name} is {value}"))
        return record

    def _keep(self, record: dict[str, Any]) -> None:
        self.result.history.append(record)
        if self._is_best(record):
            self.good_state, self.good_epoch = self.snapshot(), record["epoch"]
            self.result.best_epoch = record["epoch"]

    def _is_best(self, record: dict[str, Any]) -> bool:
        """Whether these weights are to be kept: the newest, or with ``patience`` those of the best validation ELBO."""
        if self.options.patience is None:
            return True
        if record["epoch"] < self.options.kl_warmup:
            return False  # the KL was not at its weight yet: another objective
        before = -math.inf if self.best is None else self.best
        self.best = max(record["validation_elbo"], before)
        return self.best > before

    def snapshot(self) -> dict[str, Tensor]:
        """The weights and buffers, in memory of their own."""
        return {name: tensor.clone() for name, tensor in self.vae.state_dict().items()}

    def _finish(self) -> None:
        self.vae.load_state_dict(self.good_state)
        if self.run_folder is not None:
            self.vae.save(self.run_folder.model_file)
        self.ranks.end(self.vae.state_dict())
        if not self.ranks.is_writer:
            return
        if self.skipped.rows:
            message = (
                f"{self.skipped.total} of {self.steps.num_done} steps were skipped, the first at "
                f"{self.skipped.rows[0]}. {_ADVICE.format(self.options.learning_rate)}"
            )
            warnings.warn(message, SkippedStepsWarning, stacklevel=3)
        floor = floor_warning(self.given, self.x.head(VARIANCE_SUBSET))
        if floor:
            warnings.warn(floor, FloorWarning, stacklevel=3)

    def _trouble(self, batch: Minibatch, reason: str) -> Trouble:
        site, reason = self.steps.trouble(batch, reason)
        return Trouble(site, self.epoch + 1, batch.number + 1, reason)

    def _fail(self, trouble: Trouble) -> NoReturn:
        self.vae.load_state_dict(self.good_state)
        if self.run_folder is not None:
            self.vae.save(self.run_folder.model_file)
        skipped = f" ({self.skipped.in_a_row} steps in a row were skipped)" if self.skipped.in_a_row > 1 else ""
        kept = f"those after epoch {self.good_epoch}" if self.good_epoch else "as before the fit"
        raise NonFiniteLossError(
            f"{trouble}{skipped}. The weights are {kept}. {_ADVICE.format(self.options.learning_rate)}"
        )
