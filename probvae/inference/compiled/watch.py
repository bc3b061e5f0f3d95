"""A snapshot of what programs read besides the numbers in their tensors, compared before every step.

A traced step repeats operators, so what Python read while they were written down is in them for good: a number, a flag,
a training mode, which tensor stands in an attribute. :mod:`~probvae.inference.compiled.reachable` finds those values.
"""

from collections.abc import Hashable, Iterable, Sequence
from operator import attrgetter, getitem, is_
from typing import Any

import numpy as np
from torch import Tensor

from probvae.foundation.torch_internals import versions_of
from probvae.inference.compiled.reachable import Place, Point, Reachable, Value

_REQUIRES_GRAD = attrgetter("requires_grad")


class Watch:
    """The values that ``programs`` read, as they are now.

    ``modules`` are all modules that the programs reach, ``tensors`` all tensors that are no parameters or buffers.
    Raises :class:`~probvae.errors.TraceError` where the programs reach too much for a comparison.

    >>> class Pair:
    ...     def __init__(self):
    ...         self.beta = 0.1
    ...
    ...     def model(self, x):
    ...         return self.beta * x
    >>> pair = Pair()
    >>> watch = Watch([pair.model])
    >>> watch.change() is None
    True
    >>> pair.beta = 1.0
    >>> watch.change()
    'Pair.beta was 0.1, and is 1.0'
    """

    def __init__(self, programs: Iterable[object]) -> None:
        self.programs, self.ignored, self.constants = list(programs), set[str](), list[Tensor]()
        self._look()

    def take_for_constants(self, tensors: Iterable[Tensor]) -> None:
        """From now on it is a change where ``tensors``, of any shapes, are written to."""
        self.constants = list(tensors)
        self._versions = versions_of(self.constants)

    def ignore_bookkeeping(self) -> str | None:
        """Ignore what libraries have changed in their own objects since the last look; the first other change."""
        points, facts = self.points, self.facts
        self._look()
        for name, point in {**points, **self.points}.items():
            if point.is_library and facts.get(name) != self.facts.get(name):
                self.ignored.add(name)
        return self._difference(facts)

    def change(self) -> str | None:
        """The first value that has changed since the last look, in words; None where all is as before.

        A value that was replaced by an equal one is the same.
        """
        if self._is_untouched():
            return None
        facts, versions = self.facts, self._versions
        self._look()
        if text := self._difference(facts):
            return text
        return None if versions == self._versions else "a tensor that it reads was written to"

    def _look(self) -> None:
        found = Reachable(self.programs)
        self.points, self.modules, self.tensors = found.points, found.modules, found.tensors
        self.facts: dict[str, Hashable] = {name: point.fact() for name, point in found.points.items()}
        # the comparison before a step runs no line of Python for each value
        watched = [point for name, point in found.points.items() if name not in self.ignored]
        self._items, self._attributes = (
            _columns(p for p in watched if p.is_attribute is kind) for kind in (False, True)
        )
        self._sized, self._lengths = found.sized, [len(each) for each in found.sized]
        self._all = list({id(p.value): p.value for p in watched if isinstance(p.value, Tensor)}.values())
        self._pointers, self._grads = list(map(Tensor.data_ptr, self._all)), list(map(_REQUIRES_GRAD, self._all))
        self._versions = versions_of(self.constants)
        self._arrays = [(p.value, p.value.tobytes()) for p in watched if isinstance(p.value, np.ndarray)]

    def _is_untouched(self) -> bool:
        """True where every place has the very object that it had, and nothing was written to."""
        try:
            for read, (owners, keys, values) in ((getitem, self._items), (getattr, self._attributes)):
                if not all(map(is_, map(read, owners, keys), values)):
                    return False
        except (KeyError, IndexError, AttributeError, ValueError):
            return False
        return (
            list(map(len, self._sized)) == self._lengths
            and list(map(Tensor.data_ptr, self._all)) == self._pointers
            and list(map(_REQUIRES_GRAD, self._all)) == self._grads
            and versions_of(self.constants) == self._versions
            and all(array.tobytes() == before for array, before in self._arrays)
        )

    def _difference(self, before: dict[str, Hashable]) -> str | None:
        """The first value that is another one than ``before``, in words."""
        for name in {**before, **self.facts}:
            was, now = before.get(name), self.facts.get(name)
            if was == now or name in self.ignored:
                continue
            if now is None:
                return f"{name} is there no more"
            if was is None:
                return f"{name} is {_in_words(now)}, and was not there before"
            words = _in_words(was), _in_words(now)
            return f"{name} was {words[0]}, and is {'another one' if words[0] == words[1] else words[1]}"
        return None


def _in_words(fact: Hashable) -> str:
    return str(fact) if isinstance(fact, Value | Place) else "an object"


def _columns(points: Iterable[Point]) -> tuple[list[Any], list[Any], list[Any]]:
    """Owners, keys and values of ``points``."""
    found: Sequence[Point] = list(points)
    return [p.owner for p in found], [p.key for p in found], [p.value for p in found]
