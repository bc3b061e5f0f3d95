"""A section of the page, and the subject that its figures may look at."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from probvae.data import Dataset
from probvae.diagnostics.verdicts import Diagnostic
from probvae.inference.pair import VAE


@dataclass(frozen=True)
class Subject:
    """The subject of a report: the ``vae`` for the rows ``x`` (N, D), and the same rows as readers see them.

    ``data`` has their values, labels, names and the shape of an image; ``results`` is what the diagnostics found, by
    name. With ``quick``, fewer figures are drawn.
    """

    vae: VAE
    x: Tensor
    data: Dataset
    results: Mapping[str, Diagnostic] = field(default_factory=dict)
    quick: bool = False
    seed: int = 0


class Drawn(NamedTuple):
    """A figure, the ``name`` of its caption and files, and the ``values`` for the places in the caption."""

    name: str
    figure: Figure
    values: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Illustration:
    """A figure with the ``name`` of its files; its ``caption`` says how to read it and what a good one looks like."""

    name: str
    figure: Figure
    caption: str


def _no_figures(result: Any, subject: Subject) -> Iterable[Drawn]:
    return ()


@dataclass(frozen=True)
class Section:
    """How one diagnostic stands in the page.

    ``name`` is the diagnostic's key in :attr:`~probvae.diagnostics.diagnose.Diagnosis.sections`, and the address of
    the section in the page; ``question`` is what the diagnostic answers. ``labels`` say what the numbers of its
    summary are (``"total"``, or ``"total.value"`` inside of another), ``checks`` what its verdicts are, and
    ``captions`` what its figures show, by the figures' names. ``figures`` draws the result. Where
    ``drawn_when_quick`` is false, a quick report has the numbers only.

    A section that rests on no diagnostic (``has_result`` is false) stands at the end, and ``figures`` gets None.
    """

    name: str
    title: str
    question: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, str] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    figures: Callable[[Any, Subject], Iterable[Drawn]] = _no_figures
    drawn_when_quick: bool = True
    has_result: bool = True

    def illustrations(self, result: Any, subject: Subject) -> list[Illustration]:
        """The figures of ``result`` with their captions."""
        return [
            Illustration(drawn.name, drawn.figure, self.captions[drawn.name].format(**drawn.values))
            for drawn in self.figures(result, subject)
        ]


def as_double(values: Tensor) -> NDArray[np.float64]:
    """A tensor of any shape, type and device as an array of the same shape in float64, which figures take."""
    return values.detach().double().cpu().numpy()
