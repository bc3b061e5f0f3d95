"""The traced or compiled step by itself, for any Pyro program."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import pyro
from pyro import poutine
from torch import Tensor, nn

from probvae.errors import ArgumentError, TraceError
from probvae.foundation.adam import Adam
from probvae.foundation.fit_options import check_compile
from probvae.foundation.seed import isolated_seed
from probvae.inference.compiled.choose_step import choose_step
from probvae.inference.compiled.following import Following
from probvae.inference.compiled.program import LossAndGradient
from probvae.inference.compiled.reachable import Reachable
from probvae.inference.compiled.restoring import programs_restored
from probvae.inference.compiled.step_classes import PyroStep, Step
from probvae.inference.densities.traces import PyroProgram
from probvae.inference.objectives import Objective, StepLoss, resolve_objective

# The compiler takes a quarter of a minute at each choice
_MOST_COMPILED = 3


class CompiledStep:
    r"""One step of stochastic variational inference, with Pyro's handlers run once and not at every step.

    The model, the guide and the objective are run on an example batch; the operators that reach torch are written
    down, and each call runs them on another batch, takes Adam's step and gives the loss. Drawn numbers are drawn
    anew, from torch's stream and in Pyro's order.

    Parameters
    ----------
    model, guide
        Any Pyro programs of static structure, modules or functions: which sites and shapes there are must not depend
        on the values of tensors. Parameters are those of modules, and those of ``pyro.param`` and ``pyro.module``.
    objective
        A name or an :class:`~probvae.inference.Objective` (the loss is then per datum), or a loss of Pyro's own with
        ``differentiable_loss`` (``Trace_ELBO()``, ``TraceMeanField_ELBO()``; the loss is then summed over the data).
    example
        The arguments of model and guide, tensors; batches of other shapes go through Pyro's handlers.
    optimizer
        A function that makes an :class:`~probvae.inference.compiled.Adam` of the parameters, as in
        ``lambda p: Adam(p, 0.01)``.
    compile
        ``"graph"``: run the operators as they are; True: compile them, a quarter of a minute; False: Pyro's handlers.
    gradient_clip
        The largest norm of the gradient; None for no limit.

    What the programs read may change between steps: an attribute used for annealing, ``eval()``, ``requires_grad_``,
    a buffer. Numbers in tensors are read at every step; where something else has changed, the programs are run and
    written down anew, and where it changes again and again Pyro's handlers take the steps. A value is found where the
    programs' own code names it, in attributes, closures, globals and modules.
    Raises :class:`~probvae.errors.ArgumentError` where a parameter was replaced by another one.

    A step whose loss or gradient is not finite leaves parameters and moments as they are. A program that cannot be
    traced, or whose step does not agree with Pyro's and Adam's (relative 1e-5 in float32, with the same noise), goes
    through Pyro's handlers: :attr:`path` is then ``"pyro"``, :attr:`reason` says why, and a
    :class:`~probvae.errors.PathWarning` is given.

    >>> import pyro, torch
    >>> from pyro import plate, sample
    >>> from pyro.distributions import Normal
    >>> def model(x):
    ...     mean = sample("mean", Normal(0.0, 10.0))
    ...     with plate("data", len(x)):
    ...         sample("x", Normal(mean, 1.0), obs=x)
    >>> class MeanGuide(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.loc = torch.nn.Parameter(torch.tensor(0.0))
    ...
    ...     def forward(self, x):
    ...         sample("mean", Normal(self.loc, 0.1))
    >>> x, guide = 3 + torch.randn(100), MeanGuide()
    >>> step = CompiledStep(model, guide, pyro.infer.Trace_ELBO(), example=[x], optimizer=lambda p: Adam(p, 0.05))
    >>> losses = [step(x) for _ in range(200)]
    >>> step.path, bool((guide.loc - x.mean()).abs() < 0.2)
    ('traced', True)
    """

    def __init__(
        self,
        model: PyroProgram,
        guide: PyroProgram,
        objective: str | Objective | pyro.infer.ELBO,
        example: Sequence[Tensor],
        optimizer: Any = Adam,
        compile: str | bool = "graph",
        gradient_clip: float | None = None,
    ) -> None:
        check_compile(compile)
        self.model, self.guide = model, guide
        self.objective = objective if isinstance(objective, pyro.infer.ELBO) else resolve_objective(objective)
        self._example, self._compile, self._clip = list(example), compile, gradient_clip
        self._shapes = [part.shape for part in self._example]
        parameters = self._found_parameters()
        # frozen ones among those that the programs reach may come to be trained later
        reached = (p for module in self._modules() for p in module.parameters())
        self._known = {id(parameter): parameter for parameter in chain(reached, parameters)}
        self._trained = {id(parameter): parameter.data_ptr() for parameter in parameters}
        self.optimizer: Adam = optimizer(parameters)
        self._following = Following(self._program, self._chosen, warns=bool(compile))

    def __call__(self, *batch: Tensor) -> StepLoss | Tensor:
        """Take one step on ``batch``, (B, D) and others, and give the loss before it, a scalar ().

        This package's own objectives give KL and plain ELBO too.
        """
        is_like_example = [part.shape for part in batch] == self._shapes
        step = self._following.current()
        scalars, _ = (step if is_like_example else PyroStep(step.program, self.optimizer))(*batch)
        losses = self.optimizer.parameters[0].new_tensor(scalars)
        return StepLoss(*losses) if isinstance(self.objective, Objective) else losses[0]

    @property
    def path(self) -> str:
        """The way that steps take now: ``"pyro"``, ``"traced"`` or ``"compiled"``."""
        return self._following.step.path

    @property
    def reason(self) -> str:
        """Why they take this way."""
        return self._following.step.reason

    @property
    def learning_rate(self) -> float:
        """Adam's step size, which may be set before every step."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.learning_rate = value

    def state_dict(self) -> dict[str, Tensor]:
        """The optimiser's state, a flat dictionary of tensors."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Take up what :meth:`state_dict` gave."""
        self.optimizer.load_state_dict(state_dict)

    def _losses(self, *batch: Tensor) -> Sequence[Tensor]:
        if isinstance(self.objective, Objective):
            return self.objective.step_loss(self.model, self.guide, *batch)
        loss = self.objective.differentiable_loss  # type: ignore[attr-defined]  # of all ELBOs but their base class
        return [loss(self.model, self.guide, *batch)]

    def _modules(self) -> list[nn.Module]:
        """All modules that the programs reach, or where these reach too much, the programs themselves."""
        try:
            return Reachable((self.model, self.guide)).modules
        except TraceError:
            return [part for part in (self.model, self.guide) if isinstance(part, nn.Module)]

    def _program(self) -> LossAndGradient:
        """The program with the parameters that it has now; those that were frozen at first join the optimiser's."""
        parameters = self._found_parameters()
        reached = [p for module in self._modules() for p in module.parameters() if p.requires_grad]
        for parameter in dict.fromkeys([*parameters, *reached]):
            place = self._trained.get(id(parameter), parameter.data_ptr())
            if parameter.data_ptr() != place or id(parameter) not in self._known:
                raise ArgumentError(
                    "parameters: expected those that the step was made for, got another tensor of shape "
                    f"{tuple(parameter.shape)} in the program, whose moments the optimiser does not have. Change "
                    "parameters in place, or make a new CompiledStep."
                )
        for parameter in parameters:
            if id(parameter) not in self._trained:
                self.optimizer.add(parameter)
                self._trained[id(parameter)] = parameter.data_ptr()
        return LossAndGradient(self._losses, (self.model, self.guide, self.objective), parameters, self._clip)

    def _chosen(self, program: LossAndGradient, num_choices: int) -> Step:
        # more steps than anybody takes: the caller has decided that they are worth it
        compile = "graph" if self._compile is True and num_choices >= _MOST_COMPILED else self._compile
        return choose_step(program, self.optimizer, self._example, 2**62, compile)

    def _found_parameters(self) -> list[nn.Parameter]:
        """Those of the modules, and those that Pyro is told of while the programs run."""
        found: Any = [module.parameters() for module in (self.model, self.guide) if isinstance(module, nn.Module)]
        run = programs_restored((self.model, self.guide))
        with run, isolated_seed(0, self._example[0].device), poutine.trace(param_only=True) as capture:
            self._losses(*self._example)
        sites: Any = capture.trace.nodes.values()
        stored = [site["value"].unconstrained() for site in sites if site["type"] == "param"]
        return list(dict.fromkeys([*chain.from_iterable(found), *stored]))
