"""The epochs and steps of a fit."""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from probvae._seed import isolated_seed
from probvae.errors import ArgumentError, FloorWarning, NonFiniteLossError
from probvae.inference.bad_sites import first_bad_site
from probvae.inference.checkpoints import Checkpoint
from probvae.inference.compiled.adam import Adam
from probvae.inference.compiled.paths import StepPath, choose_path
from probvae.inference.compiled.program import LossAndGradient, clipped
from probvae.inference.compiled.steps import GraphUpdate
from probvae.inference.distributed import Ranks
from probvae.inference.evaluation import ModelAndGuide, at_rows, bound, check_supports
from probvae.inference.objectives import Objective, StepLoss
from probvae.inference.preparation import FitOptions, Prepared
from probvae.inference.progress import EpochProgress
from probvae.inference.saving import Saver, saving
from probvae.inference.variance import VARIANCE_SUBSET, floor_warning, outputs_for_variance, squared_error_sums
from probvae.models import GaussianLikelihood
from probvae.runs import Run

Gradients = Sequence[Tensor | None]


class SavableVAE(ModelAndGuide, Protocol):
    """A model and a guide that can be moved to a device and saved."""

    def save(self, path: str | Path) -> None:
        """Write weights and components to ``path``."""

    def metadata(self) -> dict[str, str]:
        """What :meth:`save` writes beside the weights."""

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
    ``validation_elbo``, ``validation_kl``, ``validation_standard_error`` where there are validation data.
    ``best_epoch`` is the epoch whose weights were kept, ``stopped`` says why the fit ended. ``path`` is the way that
    its steps took (``"plain"``, ``"graph"``, ``"compiled"``: see :mod:`probvae.inference.compiled`), ``path_reason``
    says why.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = "all epochs done"
    path: str = "plain"
    path_reason: str = ""


class Trainer:
    """The state of one fit: its weights, its optimiser, and what it has to tell."""

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
        ranks = ranks or Ranks()
        self.vae, self.objective, self.options, self.run_folder, self.ranks = vae, objective, options, run, ranks
        # the VAE with the data's covariates given; itself, where it has none
        self.given, self.given_validation = (_moved(pair, device) for pair in (data.vae, data.validation_vae))
        self.x = data.x.to(device)
        self.feeder = self.x.feeder(options.batch_size)
        self.validation = None if data.validation is None else data.validation.to(device)
        self.parameters = [p for p in vae.parameters() if p.requires_grad]
        self.optimizer = Adam(self.parameters, options.learning_rate)
        # a norm is that of the whole minibatch's gradient, which several processes have only after their exchange
        self.clip_own = options.gradient_clip if ranks.size == 1 else None
        self.clip_whole = options.gradient_clip if ranks.size > 1 else None
        self.path = StepPath("plain", "not chosen yet")
        self.num_batches = math.ceil(len(self.x) / options.batch_size)
        # whole epochs that are done; all steps; the sums of this epoch's losses so far; the best validation ELBO
        self.epoch, self.step, self.totals = 0, 0, [0.0, 0.0, 0.0]
        self.best: float | None = None
        self.saver = Saver()
        self.result = FitResult()
        self.good_state, self.good_epoch = self.snapshot(), 0
        self.refused: str | None = None

    def rehearse(self) -> None:
        """Save and evaluate before anything is written: parts that do not fit together are refused here."""
        if self.run_folder is not None:
            self.vae.components()
        rows, part = self._at_use(self.x.head(2)), at_rows(self.given, slice(2))
        try:
            check_supports(part.model.prior(), part.guide.distribution(rows))
            self.objective.step_loss(part.model, part.guide, rows)
        except ValueError as error:
            if isinstance(error, ArgumentError):
                raise  # another ValueError is torch's, of numbers out of range: the first step says where they are

    def choose_path(self, compile: str | bool) -> None:
        """Through Pyro's handlers or without them, and note it where the run is written."""
        num_steps = self.options.epochs * (len(self.x) // self.options.batch_size)
        own = self.ranks.share(self.options.batch_size)
        with isolated_seed(self.options.seed, self.x.device):
            batch = self._batch(at_rows(self.given, own), self._at_use(self.x.head(self.options.batch_size)[own]))
        program = LossAndGradient(self._losses, [self.vae.model, self.vae.guide], self.parameters, self.clip_own)
        self.vae.train()
        self.path = choose_path(
            program, self.optimizer, batch, num_steps, compile, self.options.seed, self.ranks.size == 1
        )
        self.vae.train(False)
        self.result.path, self.result.path_reason = self.path.name, self.path.reason
        if self.run_folder is not None:
            self.run_folder.add_to_environment({"path": self.path.name, "path_reason": self.path.reason})

    def run(self, progress: bool, checkpoint: Checkpoint | None = None, seconds: float = math.inf) -> FitResult:
        """All epochs after ``checkpoint``, and the end; what it takes to resume is saved on the way."""
        with (
            saving(self.run_folder, self, checkpoint, seconds) as self.saver,
            EpochProgress(self.options.epochs, progress) as shown,
        ):
            start = time.perf_counter() - (self.result.history[-1]["seconds"] if self.result.history else 0.0)
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
        epoch = self.epoch + 1
        for batch, (part, rows) in enumerate(self.minibatches(), start=self.feeder.position):
            step = self.train_step(part, rows, epoch, batch)
            values = zip(self.totals, step, strict=True)
            self.totals = [total + self._batch_size(batch) * float(value) for total, value in values]
            if batch + 1 < self.num_batches:
                self.saver.after_step(self, batch + 1)
        self.vae.train(False)
        self.ranks.align_generators(self.x.device)
        loss, kl, elbo = (total / len(self.x) for total in self.totals)
        self.totals = [0.0, 0.0, 0.0]
        return {"objective": -loss, "elbo": elbo, "kl": kl, **self._evaluate(part, rows, epoch, batch)}

    def _evaluate(self, part: ModelAndGuide, rows: Tensor, epoch: int, batch: int) -> dict[str, Any]:
        """c and the validation bound at the weights that the epoch ended with.

        The last step's own loss was taken before it; weights are good only if theirs is finite too.
        """
        with isolated_seed(self.options.seed, self.x.device):
            loss = self.ranks.mean(self._loss(part, rows, batch).loss, self._weight(rows, batch))
        if not torch.isfinite(loss):
            self._fail(part, rows, epoch, batch, f"after this step the loss is {loss.item()}")
        try:
            self._update_variance()
            record = {"variance": self._mean_variance(), **self._validate()}
        except ValueError as error:
            if isinstance(error, ArgumentError):
                raise
            self._fail(part, rows, epoch, batch, str(error).split("\n")[0])
        for name, value in record.items():
            if value is not None and not math.isfinite(value):
                self._fail(part, rows, epoch, batch, f"after this step {name} is {value}")
        return record

    def minibatches(self) -> Iterator[tuple[ModelAndGuide, Tensor]]:
        """This process's rows of each minibatch, and the VAE there."""
        self.ranks.align_generators(self.x.device)
        for index, rows in self.feeder.epoch():
            own = self.ranks.share(len(index))
            with self.ranks.noise(len(index)):
                drawn = self._at_use(rows[own])
            yield at_rows(self.given, index[own]), drawn

    def _batch_size(self, batch: int) -> int:
        """The data in a minibatch, those of other processes among them."""
        return min(self.options.batch_size, len(self.x) - batch * self.options.batch_size)

    def _weight(self, rows: Tensor, batch: int) -> float:
        """This process's share of a minibatch."""
        return len(rows) / self._batch_size(batch)

    def _at_use(self, rows: Tensor) -> Tensor:
        return torch.bernoulli(rows) if self.options.binarization == "fresh" else rows

    def train_step(self, part: ModelAndGuide, rows: Tensor, epoch: int, batch: int) -> StepLoss:
        self.optimizer.learning_rate = self._learning_rate()
        traced = self.path.update is not None and self._batch_size(batch) == self.options.batch_size
        step = self._traced_step(part, rows, batch) if traced else self._plain_step(part, rows, batch)
        if not math.isfinite(step.loss):
            if traced:
                self._loss(part, rows, batch)  # torch's own validation may know more
            self._fail(part, rows, epoch, batch, f"the loss is {step.loss.item()}")
        self.step += 1
        return step

    def _traced_step(self, part: ModelAndGuide, rows: Tensor, batch: int) -> StepLoss:
        """A step without Pyro's handlers."""
        update, inputs = self.path.update, self._batch(part, rows)
        assert update is not None
        if self.ranks.size == 1:
            return StepLoss(*update(*inputs))
        assert isinstance(update, GraphUpdate)
        losses, gradients = update.losses_and_gradients(*inputs)
        return self._exchanged_step(StepLoss(*losses), gradients, rows, batch)

    def _plain_step(self, part: ModelAndGuide, rows: Tensor, batch: int) -> StepLoss:
        """The same through them; the smaller last batch takes this way always."""
        step = self._loss(part, rows, batch)
        gradients: Gradients = [None] * len(self.parameters)
        if step.loss.requires_grad:
            found = torch.autograd.grad(step.loss, self.parameters, allow_unused=True)
            gradients = _clipped(found, self.clip_own)
        return self._exchanged_step(step._replace(loss=step.loss.detach()), gradients, rows, batch)

    def _exchanged_step(self, step: StepLoss, gradients: Gradients, rows: Tensor, batch: int) -> StepLoss:
        """Adam's step down the gradient of the whole minibatch, where its loss is finite."""
        step, gradients = self.ranks.reduce(step, gradients, self.parameters, self._weight(rows, batch))
        if math.isfinite(step.loss):
            self.optimizer.step(_clipped(gradients, self.clip_whole))
        return step

    def _batch(self, part: ModelAndGuide, rows: Tensor) -> list[Tensor]:
        """What changes from step to step: rows, their covariates, and the KL's weight in a warm-up."""
        weight = [torch.tensor(self._kl_weight(), dtype=rows.dtype)] if self.options.kl_warmup else []
        return [rows, *getattr(part, "columns", ()), *weight]

    def _losses(self, rows: Tensor, *others: Tensor) -> StepLoss:
        """The objective as a function of such a batch."""
        weight = others[-1] if self.options.kl_warmup else 1.0
        columns = others[:-1] if self.options.kl_warmup else others
        part = self.given.with_columns(columns) if columns else self.given  # type: ignore[attr-defined]
        with self.ranks.noise(self.options.batch_size):
            return self.objective.step_loss(part.model, part.guide, rows, weight)

    def _loss(self, part: ModelAndGuide, rows: Tensor, batch: int) -> StepLoss:
        if not len(rows):
            return StepLoss(*rows.new_zeros(3))  # a last minibatch with fewer data than there are processes
        try:
            with self.ranks.noise(self._batch_size(batch)):
                return self.objective.step_loss(part.model, part.guide, rows, self._kl_weight())
        except ValueError as error:
            # torch's own validation of a distribution's parameters: NaN in a location or a scale
            if isinstance(error, ArgumentError):
                raise
            self.refused = str(error).split("\n")[0]
            return StepLoss(*rows.new_full((3,), math.nan))

    def _kl_weight(self) -> float:
        """From almost zero to one over the epochs of the warm-up."""
        steps = self.options.kl_warmup * self.num_batches
        return min(1.0, (self.step + 1) / steps) if steps else 1.0

    def _learning_rate(self) -> float:
        if self.options.schedule == "constant":
            return self.options.learning_rate
        done = self.step / (self.options.epochs * self.num_batches)
        return self.options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def _update_variance(self) -> None:
        likelihood = self.vae.model.likelihood
        if isinstance(likelihood, GaussianLikelihood) and likelihood.mode == "optimal":
            parts = ((at_rows(self.given, rows), x) for rows, x in self.x.blocks())
            error, num_observed = self.ranks.sums(2, squared_error_sums, parts)
            likelihood.set_variance(error / num_observed)

    @torch.no_grad()
    def _mean_variance(self) -> float | None:
        """c, averaged where there are several."""
        likelihood = self.vae.model.likelihood
        if not isinstance(likelihood, GaussianLikelihood):
            return None
        return float(likelihood.variance(outputs_for_variance(self.given, self.x.head(VARIANCE_SUBSET))).mean())

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        parts = ((at_rows(self.given_validation, rows), x) for rows, x in self.validation.blocks())
        num_data = len(self.validation)
        elbo, squared, kl = (total / num_data for total in self.ranks.sums(3, _bound_sums, parts))
        variance = max(squared - elbo**2, 0.0)
        return {
            "validation_elbo": elbo,
            "validation_kl": kl,
            "validation_standard_error": math.sqrt(variance / max(num_data - 1, 1)),
        }

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
        message = floor_warning(self.given, self.x.head(VARIANCE_SUBSET)) if self.ranks.is_writer else None
        if message:
            warnings.warn(message, FloorWarning, stacklevel=3)

    def _fail(self, part: ModelAndGuide, rows: Tensor, epoch: int, batch: int, reason: str) -> NoReturn:
        site, reason = self._culprit(part, rows, reason)
        self.vae.load_state_dict(self.good_state)
        if self.run_folder is not None:
            self.vae.save(self.run_folder.model_file)
        kept = f"those after epoch {self.good_epoch}" if self.good_epoch else "as before the fit"
        raise NonFiniteLossError(
            f"site {site!r}, epoch {epoch}, batch {batch + 1}: {reason}. The weights are {kept}. Lower learning_rate "
            f"(now {self.options.learning_rate:g}), set gradient_clip, or rescale the data."
        )

    def _culprit(self, part: ModelAndGuide, rows: Tensor, reason: str) -> tuple[str, str]:
        """The first bad site, in the first process that has one, and what torch says of it."""
        site = first_bad_site(part, rows) if len(rows) else None
        reason = self.refused or reason
        return self.ranks.first(None if site is None else (site, reason)) or ("x", reason)


def _moved(pair: ModelAndGuide, device: torch.device) -> ModelAndGuide:
    """Covariates that are given go to the device too; the weights are there already."""
    return pair.to(device) if isinstance(pair, nn.Module) else pair


def _clipped(gradients: Gradients, limit: float | None) -> Gradients:
    """The gradients that there are, clipped; None stays None."""
    found = iter(clipped([gradient for gradient in gradients if gradient is not None], limit))
    return [None if gradient is None else next(found) for gradient in gradients]


def _bound_sums(vae: ModelAndGuide, rows: Tensor) -> Tensor:
    """The sums of the ELBO, of its square and of the KL."""
    values = bound(vae, rows)
    elbo = values.elbo.double()
    return torch.stack([elbo.sum(), elbo.square().sum(), values.kl.double().sum()])
