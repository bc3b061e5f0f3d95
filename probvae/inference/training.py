"""The epochs of a fit: what is recorded, which weights are kept, and when it ends."""

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import torch
from torch import Tensor, nn

from probvae._seed import isolated_seed
from probvae.errors import ArgumentError, FloorWarning, NonFiniteLossError, SkippedStepsWarning
from probvae.inference.distributed import Ranks
from probvae.inference.epoch_values import mean_variance, set_optimal_variance, validation_bound
from probvae.inference.evaluation import ModelAndGuide
from probvae.inference.objectives import Objective
from probvae.inference.preparation import FitOptions, Prepared
from probvae.inference.progress import EpochProgress
from probvae.inference.training_steps import Minibatch, StepNumbers, Steps
from probvae.inference.variance import VARIANCE_SUBSET, floor_warning
from probvae.runs import Run

_ADVICE = "Lower learning_rate (now {:g}), set gradient_clip, or rescale the data."


class SavableVAE(ModelAndGuide, Protocol):
    """A model and a guide that can be moved to a device and saved."""

    def save(self, path: str | Path) -> None:
        """Write weights and components to ``path``."""

    def given(self, y: Any, exposure: Any) -> ModelAndGuide:
        """The pair for given covariates."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move to ``device``."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """All trainable tensors."""

    def components(self) -> dict[str, Any]:
        """What :meth:`save` writes beside the weights; raises where it could not."""

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name."""

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> Any:
        """Restore them."""

    def train(self, mode: bool = True) -> Any:
        """Set the training mode."""


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
    says why.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = "all epochs done"
    path: str = "plain"
    path_reason: str = ""


class Trouble(NamedTuple):
    """Where a step could not be taken, and why."""

    site: str
    epoch: int
    batch: int
    reason: str

    def __str__(self) -> str:
        return f"site {self.site!r}, epoch {self.epoch}, batch {self.batch}: {self.reason}"


@dataclass
class SkippedSteps:
    """The steps that were not taken, and where each row of them began."""

    total: int = 0
    in_a_row: int = 0
    rows: list[Trouble] = field(default_factory=list)


class Trainer:
    """The epochs of one fit: what is recorded, kept and told."""

    def __init__(
        self,
        vae: SavableVAE,
        data: Prepared,
        device: torch.device,
        objective: Objective,
        options: FitOptions,
        run: Run | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.vae, self.options, self.run_folder, self.ranks = vae, options, run, ranks or Ranks()
        # the VAE with the data's covariates given; itself, where it has none
        self.given, self.given_validation = (_moved(pair, device) for pair in (data.vae, data.validation_vae))
        self.x = data.x.to(device)
        self.validation = None if data.validation is None else data.validation.to(device)
        self.steps = Steps(vae, self.given, self.x, objective, options, self.ranks)
        self.skipped = SkippedSteps()
        self.result = FitResult()
        self.good_state, self.good_epoch = _snapshot(vae), 0

    def rehearse(self) -> None:
        """Save and evaluate before anything is written: parts that do not fit together are refused here."""
        if self.run_folder is not None:
            self.vae.components()
        self.steps.rehearse()

    def open_run(self) -> None:
        """Make the folder, and note there which path the steps take."""
        self.result.path, self.result.path_reason, _ = self.steps.path
        if self.run_folder is not None:
            self.run_folder.add_to_environment({"path": self.result.path, "path_reason": self.result.path_reason})
            self.run_folder.create()

    def run(self, progress: bool) -> FitResult:
        """All epochs, or as many as are needed."""
        best, start = -math.inf, time.perf_counter()
        with EpochProgress(self.options.epochs, progress) as shown:
            for epoch in range(1, self.options.epochs + 1):
                record = self.ranks.agreed(
                    {"epoch": epoch, **self._epoch(epoch), "seconds": round(time.perf_counter() - start, 4)}
                )
                self._keep(record)
                shown.update(record)
                best = self._track_best(record, best)
                since = epoch - max(self.result.best_epoch, self.options.kl_warmup)
                if self.options.patience and since >= self.options.patience:
                    self.result.stopped = f"no better validation ELBO for {self.options.patience} epochs"
                    break
        self._finish()
        return self.result

    def _epoch(self, epoch: int) -> dict[str, Any]:
        self.vae.train()
        loss = kl = elbo = 0.0
        num_data, num_skipped, last = 0, self.skipped.total, None
        for batch in self.steps.minibatches():
            step = self.steps.take(batch)
            if not step.taken:
                self._skip(batch, step, epoch)
                continue
            size, last = self.steps.num_data(batch), batch
            loss, kl, elbo = loss + size * step.loss, kl + size * step.kl, elbo + size * step.elbo
            num_data += size
            self.skipped.in_a_row = 0
        self.vae.train(False)
        self.ranks.align_generators(self.x.device)
        if last is None:
            self._fail(self.skipped.rows[-1])
        means = {"objective": -loss / num_data, "elbo": elbo / num_data, "kl": kl / num_data}
        return {**means, **self._evaluate(last, epoch), "skipped_steps": self.skipped.total - num_skipped}

    def _skip(self, batch: Minibatch, step: StepNumbers, epoch: int) -> None:
        if not self.skipped.in_a_row:
            reason = "the gradient is not finite" if math.isfinite(step.loss) else f"the loss is {step.loss}"
            self.skipped.rows.append(self._trouble(batch, epoch, reason))
        self.skipped.total += 1
        self.skipped.in_a_row += 1
        if self.skipped.in_a_row > self.options.max_skipped_steps:
            self._fail(self.skipped.rows[-1])

    def _evaluate(self, batch: Minibatch, epoch: int) -> dict[str, Any]:
        """c and the validation bound at the weights that the epoch ended with.

        The last step's own loss was taken before it; weights are good only if theirs is finite too.
        """
        with isolated_seed(self.options.seed, self.x.device):
            loss = self.steps.mean_loss(batch)
        if not math.isfinite(loss):
            self._fail(self._trouble(batch, epoch, f"after this step the loss is {loss}"))
        try:
            set_optimal_variance(self.given, self.x, self.ranks)
            validation = validation_bound(self.given_validation, self.validation, self.ranks)
            record = {"variance": mean_variance(self.given, self.x), **validation}
        except ValueError as error:
            if isinstance(error, ArgumentError):
                raise
            self._fail(self._trouble(batch, epoch, str(error).split("\n")[0]))
        for name, value in record.items():
            if value is not None and not math.isfinite(value):
                self._fail(self._trouble(batch, epoch, f"after this step {name} is {value}"))
        return record

    def _keep(self, record: dict[str, Any]) -> None:
        self.result.history.append(record)
        if self.options.patience is None:
            self.good_state, self.good_epoch = _snapshot(self.vae), record["epoch"]
        if self.run_folder is not None:
            self.vae.save(self.run_folder.checkpoint_file(record["epoch"]))
            self.run_folder.append_metrics(record)
            self.run_folder.drop_old_checkpoints()

    def _track_best(self, record: dict[str, Any], best: float) -> float:
        if self.options.patience is None:
            self.result.best_epoch = record["epoch"]
            return best
        if record["epoch"] < self.options.kl_warmup:
            return best  # the KL was not at its weight yet: another objective
        if record["validation_elbo"] > best:
            self.good_state, self.good_epoch = _snapshot(self.vae), record["epoch"]
            self.result.best_epoch = record["epoch"]
        return max(best, record["validation_elbo"])

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

    def _trouble(self, batch: Minibatch, epoch: int, reason: str) -> Trouble:
        site, reason = self.steps.trouble(batch, reason)
        return Trouble(site, epoch, batch.number + 1, reason)

    def _fail(self, trouble: Trouble) -> NoReturn:
        self.vae.load_state_dict(self.good_state)
        if self.run_folder is not None:
            self.vae.save(self.run_folder.model_file)
        skipped = f" ({self.skipped.in_a_row} steps in a row were skipped)" if self.skipped.in_a_row > 1 else ""
        kept = f"those after epoch {self.good_epoch}" if self.good_epoch else "as before the fit"
        raise NonFiniteLossError(
            f"{trouble}{skipped}. The weights are {kept}. {_ADVICE.format(self.options.learning_rate)}"
        )


def _moved(pair: ModelAndGuide, device: torch.device) -> ModelAndGuide:
    """Covariates that are given go to the device too; the weights are there already."""
    return pair.to(device) if isinstance(pair, nn.Module) else pair


def _snapshot(vae: SavableVAE) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in vae.state_dict().items()}
