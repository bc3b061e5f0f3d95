"""The steps of a fit: Adam down the gradient of one minibatch, and where its numbers stop being finite."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from copy import copy
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.foundation.adam import Adam
from probvae.foundation.fit_options import FitOptions
from probvae.foundation.seed import isolated_seed
from probvae.inference.compiled.choose_step import choose_step
from probvae.inference.compiled.following import Following
from probvae.inference.compiled.program import LossAndGradient, clipped_where_there, gradients_where_wanted
from probvae.inference.compiled.restoring import programs_restored, restored
from probvae.inference.compiled.step_classes import GradientStep, PyroStep, Step, Taken, step_where_finite
from probvae.inference.densities.non_finite import TORCH_ERRORS, short_reason
from probvae.inference.densities.traces import paired_traces
from probvae.inference.objectives import Objective, StepLoss
from probvae.inference.pair import VAE, check_supports
from probvae.inference.training.minibatches import Rows
from probvae.inference.training.processes import Processes
from probvae.inference.training.union_noise import Layouts, find_layouts

Gradients = Sequence[Tensor | None]


class Minibatch(NamedTuple):
    """This process's ``rows`` (n, D) of a minibatch, and the VAE ``pair`` with their covariates.

    ``number`` is the minibatch's in its epoch, ``num_rows`` the size of the whole minibatch, and ``step`` the number of
    steps before it in the fit.
    """

    pair: VAE
    rows: Tensor
    number: int
    num_rows: int
    step: int

    @property
    def weight(self) -> float:
        """This process's part of the minibatch."""
        return len(self.rows) / self.num_rows


class StepNumbers(NamedTuple):
    """The losses of a step in nats per datum; it was ``taken`` if loss and gradient were finite."""

    loss: float
    kl: float
    elbo: float
    taken: bool


class Stepper:
    """Takes steps on the weights of ``vae``; ``conditioned`` is it with the covariates of all ``num_rows`` data."""

    def __init__(
        self,
        vae: VAE,
        conditioned: VAE,
        num_rows: int,
        objective: Objective,
        options: FitOptions,
        processes: Processes,
    ) -> None:
        self.vae, self.conditioned = vae, conditioned
        self.objective, self.options, self.processes = objective, options, processes
        self.modules = (vae.model, vae.guide)
        parameters = dict.fromkeys(chain.from_iterable(module.parameters() for module in self.modules))
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.buffers = list(dict.fromkeys(chain.from_iterable(module.buffers() for module in self.modules)))
        self.moving = self.buffers  # the first step shows which buffers a step changes
        self.optimizer = Adam(self.parameters, options.learning_rate)
        # a norm is that of the whole minibatch's gradient, which several processes have only after their exchange
        self.clip_own = options.gradient_clip if processes.size == 1 else None
        self.clip_whole = options.gradient_clip if processes.size > 1 else None
        self._following: Following | None = None
        self.num_batches = math.ceil(num_rows / options.batch_size)
        self.num_whole_batches = num_rows // options.batch_size
        self.refused: str | None = None
        # The place of the rows in random numbers, by the mode of the networks, which tells from the first rows
        self._layouts: dict[bool, Layouts] = {}
        self._head = torch.empty(0)

    def dry_run(self, rows: Tensor) -> None:
        """Evaluate the objective at the first ``rows`` (n, D): parts that do not fit together are refused here."""
        pair = self.conditioned.at(slice(len(rows)))
        try:
            check_supports(pair.model.prior(), pair.guide.distribution(self.binarized(rows)))
            self.objective.step_loss(pair.model, pair.guide, self.binarized(rows))
        except TORCH_ERRORS as error:
            if isinstance(error, ArgumentError):
                raise  # the others are torch's, of numbers out of range: the first step says where they are

    def choose_step(self, data: Rows) -> None:
        """Choose how steps are taken; model and guide have to be in their training mode."""
        size = self.options.batch_size
        mine, self._head = self.processes.my_slice(size), data.head(size)
        with suppress(*TORCH_ERRORS):  # the first step says where
            self._noise(size)
        batch = self._inputs(Minibatch(self.conditioned.at(mine), self._head[mine], 0, size, 0))
        num_steps = self.options.epochs * self.num_whole_batches
        compile, seed, alone = self.options.compile, self.options.seed, self.processes.size == 1

        def choose(program: LossAndGradient, num_choices: int) -> Step:
            # only the first choice may be worth the compiler's time
            way = "graph" if num_choices and compile is not False else compile
            return choose_step(program, self.optimizer, batch, num_steps, way, seed, alone)

        self._following = Following(self._program, choose, warns=compile not in (False, "auto"))

    @property
    def step(self) -> Step:
        """The step that is taken now."""
        if self._following is None:
            return PyroStep(self._program(), self.optimizer, "not chosen yet")
        return self._following.step

    def _program(self) -> LossAndGradient:
        """The losses with the parameters that require a gradient now."""
        known = {id(parameter) for parameter in self.parameters}
        for name, parameter in chain.from_iterable(module.named_parameters() for module in self.modules):
            if parameter.requires_grad and id(parameter) not in known:
                raise ArgumentError(
                    f"{name}: expected to stay frozen, as at the start of the fit, and it requires a gradient since. "
                    "Unfreeze it before the fit, or fit again."
                )
        programs = (*self.modules, self.objective)
        return LossAndGradient(self._losses, programs, self.parameters, self.clip_own)

    def take(self, batch: Minibatch) -> StepNumbers:
        """Take one step where its loss and gradient are finite; elsewhere nothing moves, buffers neither."""
        self.refused = None
        self.optimizer.learning_rate = self._learning_rate(batch.step)
        step = self._step_without_handlers(batch)
        before = [buffer.clone() for buffer in self.moving]
        (loss, kl, elbo), taken = self._traced_step(step, batch) if step else self._plain_step(batch)
        if not taken:
            for buffer, value in zip(self.moving, before, strict=True):
                buffer.copy_(value)
        elif self.moving is self.buffers:
            changed = zip(self.moving, before, strict=True)
            self.moving = [buffer for buffer, value in changed if not torch.equal(buffer, value)]
        return StepNumbers(loss, kl, elbo, taken)

    def _step_without_handlers(self, batch: Minibatch) -> Step | None:
        """The traced or compiled step for ``batch``, where there is one for the program as it is now."""
        if self._following is None or batch.num_rows != self.options.batch_size:
            return None
        step = self._following.current()
        return None if isinstance(step, PyroStep) else step

    def mean_loss(self, batch: Minibatch) -> float:
        """The loss of the whole minibatch at the present weights."""
        return self.processes.mean(self._loss(batch).loss.detach(), batch.weight).item()

    def failure(self, batch: Minibatch, reason: str) -> tuple[str, str]:
        """The first bad site, in the first process that has one, and ``reason`` or what torch says of the site."""
        with isolated_seed(self.options.seed, batch.rows.device), restored(self.buffers):
            found = self._failure(batch, reason) if len(batch.rows) else None
        return self.processes.first_value(found) or ("x", reason)

    def _failure(self, batch: Minibatch, reason: str) -> tuple[str, str] | None:
        loss = self._loss(batch).loss  # torch's own validation may know more
        if site := first_bad_site(batch.pair, self.binarized(batch.rows)):
            return site, self.refused or reason
        if bad := first_bad_gradient(self.vae, loss):
            return bad[0], f"the gradient of {bad[1]} is not finite"
        return ("x", self.refused) if self.refused else None

    def _traced_step(self, step: Step, batch: Minibatch) -> Taken:
        """Take a step without Pyro's handlers."""
        inputs = self._inputs(batch)
        try:
            if self.processes.size == 1:
                return step(*inputs)
            assert isinstance(step, GradientStep)
            losses, gradients = step.losses_and_gradients(*inputs)
        except TORCH_ERRORS:
            return self._plain_step(batch)  # which says why, and skips
        return self._exchanged_step(StepLoss(*losses), gradients, batch)

    def _plain_step(self, batch: Minibatch) -> Taken:
        """Take a step through Pyro's handlers; the smaller last minibatch takes this way always."""
        step = self._loss(batch)
        gradients: Gradients = [None] * len(self.parameters)
        if step.loss.requires_grad:
            # the mean over a smaller minibatch has its data's weight only
            weighted = step.loss * (batch.num_rows / self.options.batch_size)
            gradients = clipped_where_there(gradients_where_wanted(weighted, self.parameters), self.clip_own)
        return self._exchanged_step(step._replace(loss=step.loss.detach()), gradients, batch)

    def _exchanged_step(self, step: StepLoss, gradients: Gradients, batch: Minibatch) -> Taken:
        """Take Adam's step down the gradient of the whole minibatch."""
        step, gradients = self.processes.reduce(step, gradients, self.parameters, batch.weight)
        return step_where_finite(self.optimizer, step, clipped_where_there(gradients, self.clip_whole))

    def binarized(self, rows: Tensor) -> Tensor:
        """The ``rows`` (n, D) as a step sees them, (n, D); ``binarization="fresh"`` draws them anew.

        The draws are uniform ones that are compared: torch.bernoulli's numbers would differ where they are compiled.
        """
        return (torch.rand_like(rows) < rows).to(rows.dtype) if self.options.binarization == "fresh" else rows

    def _inputs(self, batch: Minibatch) -> list[Tensor]:
        """The tensors that change from step to step: rows, their covariates, and the KL's weight in a warm-up."""
        warm_up = self.options.kl_warmup
        weight = [torch.tensor(self._kl_weight(batch.step), dtype=batch.rows.dtype)] if warm_up else []
        return [batch.rows, *batch.pair.columns, *weight]

    def _losses(self, rows: Tensor, *others: Tensor) -> StepLoss:
        """The objective as a function of what :meth:`_inputs` gives, for a whole minibatch."""
        weight = others[-1] if self.options.kl_warmup else 1.0
        columns = others[:-1] if self.options.kl_warmup else others
        pair = self.conditioned.with_columns(columns)
        with self._noise(self.options.batch_size):
            return self.objective.step_loss(pair.model, pair.guide, self.binarized(rows), weight)

    def _loss(self, batch: Minibatch) -> StepLoss:
        pair, rows = batch.pair, batch.rows
        if not len(rows):
            return StepLoss(*rows.new_zeros(3))  # a last minibatch with fewer data than there are processes
        try:
            with self._noise(batch.num_rows):
                return self.objective.step_loss(
                    pair.model, pair.guide, self.binarized(rows), self._kl_weight(batch.step)
                )
        except TORCH_ERRORS as error:
            if isinstance(error, ArgumentError):
                raise
            self.refused = short_reason(error)
            return StepLoss(*rows.new_full((3,), math.nan))

    def _noise(self, num_rows: int) -> AbstractContextManager[object]:
        """A block that draws this process's random numbers of a minibatch of ``num_rows``."""
        mode = self.vae.training
        if self.processes.size > 1 and mode not in self._layouts:
            with isolated_seed(self.options.seed, self._head.device), programs_restored(self.modules):
                self._layouts[mode] = find_layouts(self._try, self.objective.num_particles)
        return self.processes.noise(num_rows, self._layouts.get(mode))

    def _try(self, num_rows: int, num_particles: int) -> None:
        """Run the objective on other numbers of rows and particles than a step has."""
        places = torch.arange(num_rows, device=self._head.device) % len(self._head)
        objective, pair = copy(self.objective), self.conditioned.at(places)
        objective.num_particles = num_particles
        objective.step_loss(pair.model, pair.guide, self.binarized(self._head[places]), self._kl_weight(0))

    def _kl_weight(self, step: int) -> float:
        """The KL's weight, from almost zero to one over the epochs of the warm-up."""
        steps = self.options.kl_warmup * self.num_batches
        return min(1.0, (step + 1) / steps) if steps else 1.0

    def _learning_rate(self, step: int) -> float:
        if self.options.schedule == "constant":
            return self.options.learning_rate
        done = step / (self.options.epochs * self.num_batches)
        return self.options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def first_bad_site(vae: VAE, rows: Tensor) -> str | None:
    """The first sample site whose parameters or log density are not finite at ``rows`` (n, D)."""
    try:
        vae.guide.distribution(rows)
    except TORCH_ERRORS:
        return "z"  # the guide's own parameters are not finite: torch refuses to build the distribution
    try:
        traces = paired_traces(vae.model, vae.guide, rows, 1)
    except TORCH_ERRORS:
        return "x"  # the decoder's output is not finite
    for trace in reversed(traces):
        try:
            trace.compute_log_prob()
        except TORCH_ERRORS:
            return "z" if "z" in trace.nodes and "x" not in trace.nodes else "x"
        for name, site in trace.nodes.items():
            if site["type"] == "sample" and not torch.isfinite(site["log_prob"]).all():
                return str(name)
    return None


def first_bad_gradient(vae: VAE, loss: Tensor) -> tuple[str, str] | None:
    """A parameter whose gradient of ``loss`` () is not finite, and the site whose distribution it belongs to.

    The likelihood's come first: what is wrong at x reaches the guide through z.
    """
    parts = (("x", "model", vae.model), ("z", "guide", vae.guide))
    named = [(site, f"{part}.{name}", p) for site, part, module in parts for name, p in module.named_parameters()]
    named = [each for each in named if each[2].requires_grad]
    if not (named and loss.requires_grad):
        return None
    found = torch.autograd.grad(loss, [parameter for _, _, parameter in named], allow_unused=True)
    for (site, name, _), gradient in zip(named, found, strict=True):
        if gradient is not None and not torch.linalg.vector_norm(gradient).isfinite():
            return ("z" if name.startswith("model.prior.") else site), name
    return None
