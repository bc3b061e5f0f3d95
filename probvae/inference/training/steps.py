"""The steps of a fit: minibatches, and Adam down the gradient of each."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.foundation.seed import isolated_seed
from probvae.inference.compiled.adam import Adam
from probvae.inference.compiled.graph_steps import GraphUpdate, step_where_finite
from probvae.inference.compiled.paths import StepPath, choose_path
from probvae.inference.compiled.program import LossAndGradient, clipped
from probvae.inference.compiled.restoring import restored
from probvae.inference.densities.non_finite import TORCH_ERRORS, short_reason
from probvae.inference.objectives import Objective, StepLoss
from probvae.inference.pair import VAE, check_supports
from probvae.inference.training.bad_sites import first_bad_gradient, first_bad_site
from probvae.inference.training.minibatches import Source
from probvae.inference.training.options import FitOptions
from probvae.inference.training.processes import Ranks

Gradients = Sequence[Tensor | None]
# the losses, and whether the step was taken
Taken = tuple[list[float], bool]


class Minibatch(NamedTuple):
    """This process's ``rows`` of the minibatch ``number`` of an epoch, and the VAE ``pair`` with their covariates."""

    pair: VAE
    rows: Tensor
    number: int


class StepNumbers(NamedTuple):
    """What a step tells, in nats per datum, and whether it was taken: not where loss or gradient is not finite."""

    loss: float
    kl: float
    elbo: float
    taken: bool


class Steps:
    """The way from the data ``x`` to Adam on the weights of ``vae``; ``given`` is it with the data's covariates."""

    def __init__(
        self,
        vae: VAE,
        given: VAE,
        x: Source,
        objective: Objective,
        options: FitOptions,
        ranks: Ranks,
    ) -> None:
        self.vae, self.given, self.x = vae, given, x
        self.objective, self.options, self.ranks = objective, options, ranks
        self.feeder = x.feeder(options.batch_size)
        modules = (vae.model, vae.guide)
        parameters = dict.fromkeys(chain.from_iterable(module.parameters() for module in modules))
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.buffers = list(dict.fromkeys(chain.from_iterable(module.buffers() for module in modules)))
        # those that a step changes; the first one shows which they are
        self.moving = self.buffers
        self.optimizer = Adam(self.parameters, options.learning_rate)
        # a norm is that of the whole minibatch's gradient, which several processes have only after their exchange
        self.clip_own = options.gradient_clip if ranks.size == 1 else None
        self.clip_whole = options.gradient_clip if ranks.size > 1 else None
        self.path = StepPath("plain", "not chosen yet")
        self.num_batches = math.ceil(len(x) / options.batch_size)
        self.num_done = 0
        self.refused: str | None = None

    def rehearse(self) -> None:
        """Evaluate once: parts that do not fit together are refused here."""
        rows, pair = self.x.head(2), self.given.at(slice(2))
        try:
            check_supports(pair.model.prior(), pair.guide.distribution(self._at_use(rows)))
            self.objective.step_loss(pair.model, pair.guide, self._at_use(rows))
        except TORCH_ERRORS as error:
            if isinstance(error, ArgumentError):
                raise  # the others are torch's, of numbers out of range: the first step says where they are

    def choose_path(self, compile: str | bool) -> None:
        """Through Pyro's handlers or without them; model and guide have to be in their training mode."""
        num_steps = self.options.epochs * (len(self.x) // self.options.batch_size)
        own = self.ranks.share(self.options.batch_size)
        batch = self._inputs(Minibatch(self.given.at(own), self.x.head(self.options.batch_size)[own], 0))
        program = LossAndGradient(self._losses, [self.vae.model, self.vae.guide], self.parameters, self.clip_own)
        self.path = choose_path(
            program, self.optimizer, batch, num_steps, compile, self.options.seed, self.ranks.size == 1
        )

    def minibatches(self) -> Iterator[Minibatch]:
        """Those of one epoch."""
        self.ranks.align_generators(self.x.device)
        for number, (index, rows) in enumerate(self.feeder.epoch(), start=self.feeder.position):
            yield Minibatch(self.given.at(self.ranks.own(index)), self.ranks.own(rows), number)

    def num_data(self, batch: Minibatch) -> int:
        """The data in a minibatch, those of other processes among them."""
        return min(self.options.batch_size, len(self.x) - batch.number * self.options.batch_size)

    def take(self, batch: Minibatch) -> StepNumbers:
        """One step, where its loss and gradient are finite; elsewhere nothing moves, buffers neither."""
        self.refused = None
        self.optimizer.learning_rate = self._learning_rate()
        traced = self.path.update is not None and self.num_data(batch) == self.options.batch_size
        before = [buffer.clone() for buffer in self.moving]
        (loss, kl, elbo), taken = self._traced_step(batch) if traced else self._plain_step(batch)
        if not taken:
            for buffer, value in zip(self.moving, before, strict=True):
                buffer.copy_(value)
        elif self.moving is self.buffers:
            changed = zip(self.moving, before, strict=True)
            self.moving = [buffer for buffer, value in changed if not torch.equal(buffer, value)]
        self.num_done += 1
        return StepNumbers(loss, kl, elbo, taken)

    def mean_loss(self, batch: Minibatch) -> float:
        """The loss of the whole minibatch at the present weights."""
        return self.ranks.mean(self._loss(batch).loss.detach(), self._share(batch)).item()

    def trouble(self, batch: Minibatch, reason: str) -> tuple[str, str]:
        """The first bad site, in the first process that has one, and the reason or what torch says of it."""
        with isolated_seed(self.options.seed, self.x.device), restored(self.buffers):
            found = self._trouble(batch, reason) if len(batch.rows) else None
        return self.ranks.first(found) or ("x", reason)

    def _trouble(self, batch: Minibatch, reason: str) -> tuple[str, str] | None:
        loss = self._loss(batch).loss  # torch's own validation may know more
        if site := first_bad_site(batch.pair, self._at_use(batch.rows)):
            return site, self.refused or reason
        if bad := first_bad_gradient(self.vae, loss):
            return bad[0], f"the gradient of {bad[1]} is not finite"
        return ("x", self.refused) if self.refused else None

    def _traced_step(self, batch: Minibatch) -> Taken:
        """A step without Pyro's handlers."""
        update, inputs = self.path.update, self._inputs(batch)
        assert update is not None
        try:
            if self.ranks.size == 1:
                return update(*inputs)
            assert isinstance(update, GraphUpdate)
            losses, gradients = update.losses_and_gradients(*inputs)
        except TORCH_ERRORS:
            return self._plain_step(batch)  # which says why, and skips
        return self._exchanged_step(StepLoss(*losses), gradients, batch)

    def _plain_step(self, batch: Minibatch) -> Taken:
        """The same through them; the smaller last batch takes this way always."""
        step = self._loss(batch)
        gradients: Gradients = [None] * len(self.parameters)
        if step.loss.requires_grad:
            # the mean over a smaller batch has its data's weight only
            weighted = step.loss * (self.num_data(batch) / self.options.batch_size)
            found = torch.autograd.grad(weighted, self.parameters, allow_unused=True)
            gradients = _clipped(found, self.clip_own)
        return self._exchanged_step(step._replace(loss=step.loss.detach()), gradients, batch)

    def _exchanged_step(self, step: StepLoss, gradients: Gradients, batch: Minibatch) -> Taken:
        """Adam's step down the gradient of the whole minibatch."""
        step, gradients = self.ranks.reduce(step, gradients, self.parameters, self._share(batch))
        return step_where_finite(self.optimizer, step, _clipped(gradients, self.clip_whole))

    def _share(self, batch: Minibatch) -> float:
        """This process's part of a minibatch."""
        return len(batch.rows) / self.num_data(batch)

    def _at_use(self, rows: Tensor) -> Tensor:
        """Binarised by uniform draws: torch.bernoulli's numbers would be others where they are compiled."""
        return (torch.rand_like(rows) < rows).to(rows.dtype) if self.options.binarization == "fresh" else rows

    def _inputs(self, batch: Minibatch) -> list[Tensor]:
        """What changes from step to step: rows, their covariates, and the KL's weight in a warm-up."""
        weight = [torch.tensor(self._kl_weight(), dtype=batch.rows.dtype)] if self.options.kl_warmup else []
        return [batch.rows, *batch.pair.columns, *weight]

    def _losses(self, rows: Tensor, *others: Tensor) -> StepLoss:
        """The objective as a function of such inputs."""
        weight = others[-1] if self.options.kl_warmup else 1.0
        columns = others[:-1] if self.options.kl_warmup else others
        pair = self.given.with_columns(columns)
        with self.ranks.noise(self.options.batch_size):
            return self.objective.step_loss(pair.model, pair.guide, self._at_use(rows), weight)

    def _loss(self, batch: Minibatch) -> StepLoss:
        pair, rows, _ = batch
        if not len(rows):
            return StepLoss(*rows.new_zeros(3))  # a last minibatch with fewer data than there are processes
        try:
            with self.ranks.noise(self.num_data(batch)):
                return self.objective.step_loss(pair.model, pair.guide, self._at_use(rows), self._kl_weight())
        except TORCH_ERRORS as error:
            if isinstance(error, ArgumentError):
                raise
            self.refused = short_reason(error)
            return StepLoss(*rows.new_full((3,), math.nan))

    def _kl_weight(self) -> float:
        """From almost zero to one over the epochs of the warm-up."""
        steps = self.options.kl_warmup * self.num_batches
        return min(1.0, (self.num_done + 1) / steps) if steps else 1.0

    def _learning_rate(self) -> float:
        if self.options.schedule == "constant":
            return self.options.learning_rate
        done = self.num_done / (self.options.epochs * self.num_batches)
        return self.options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _clipped(gradients: Gradients, limit: float | None) -> Gradients:
    """The gradients that there are, clipped; None stays None."""
    found = iter(clipped([gradient for gradient in gradients if gradient is not None], limit))
    return [None if gradient is None else next(found) for gradient in gradients]
