"""A figure as it stands in a report."""

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Illustration:
    """``figure`` is saved under ``name``; ``caption`` says how to read it and what a good one looks like."""

    name: str
    figure: Figure
    caption: str
