"""The step for a program as it is now: what it reads may change between steps, and a recording would not see it."""

import warnings
from collections.abc import Callable

from probvae.errors import PathWarning
from probvae.inference.compiled.program import LossAndGradient
from probvae.inference.compiled.step_classes import PyroStep, Step

# A recording and its check take as long as some forty steps through Pyro's handlers: a program that changes at every
# step is recorded a few times only, and then after a pause, twice as long each time
_RECORDINGS_AT_ONCE, _FIRST_PAUSE = 3, 20


class Following:
    """Has the :attr:`step` for a program whose numbers, modes and tensors may be changed by the user between steps.

    ``make`` makes the program as it is now, and ``choose`` chooses its step; it is told how often it has chosen before.
    Where something has changed that the program read while it was recorded, both are asked again. From the third change
    on Pyro's handlers take the steps, which read everything anew, until nothing has changed over a pause; with
    ``warns`` a :class:`~probvae.errors.PathWarning` says so.
    """

    def __init__(
        self,
        make: Callable[[], LossAndGradient],
        choose: Callable[[LossAndGradient, int], Step],
        warns: bool = True,
    ) -> None:
        self._make, self._choose, self._warns = make, choose, warns
        self._num_choices, self._pause, self._left = 0, _FIRST_PAUSE, 0
        self.step = self._chosen(make())

    def current(self) -> Step:
        """The step to take now."""
        if self._watch is None:
            return self.step
        if self._left > 1:
            self._left -= 1
            return self.step
        text = self._watch.change()
        if self._left:
            self._after_a_pause(text)
        elif text is not None and self._num_choices < _RECORDINGS_AT_ONCE:
            self.step = self._chosen(self._make())
        elif text is not None:
            self._wait(text)
        return self.step

    def _chosen(self, program: LossAndGradient) -> Step:
        step = self._choose(program, self._num_choices)
        self._num_choices, self._left = self._num_choices + 1, 0
        # Pyro's handlers read everything anew at every step
        self._watch = None if isinstance(step, PyroStep) else program.watch
        return step

    def _wait(self, text: str) -> None:
        """Take Pyro's handlers for a while."""
        reason = f"what the program reads is changed between steps again and again: {text}"
        self.step = PyroStep(self._make(), self.step.optimizer, reason)
        self._left = self._pause
        if self._warns:
            warnings.warn(f"compile: the pyro path is taken; {reason}", PathWarning, stacklevel=4)
            self._warns = False

    def _after_a_pause(self, text: str | None) -> None:
        """Record again where nothing has changed over the pause; otherwise wait for twice as long."""
        if text is None:
            self.step = self._chosen(self._make())
        else:
            self._pause = self._left = 2 * self._pause
