"""The ledger of gaps: how many nats, and whose fault."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from probvae.report.drawing.arrays import Floats, as_array, check_same_shape
from probvae.report.drawing.style import (
    BLUE,
    INK,
    ORANGE,
    count_data,
    new_figure,
    polish,
    set_heading,
    set_note,
    styled,
)

# beyond this ratio of the largest to the median gap, most data would lie on the axis of a linear scale
_WIDE = 20.0


class Mean(NamedTuple):
    """A mean in nats per datum and its standard error, None for one datum."""

    value: float
    error: float | None


@styled
def ledger(approximation: ArrayLike, amortisation: ArrayLike, means: tuple[Mean, Mean]) -> Figure:
    """The gap of each datum, (N,) and (N,) in nats, and their ``means`` (approximation, amortisation) as one bar.

    The bars' whiskers are one standard error. Below, each line has its own order: at 80 % is the gap that 80 % of
    the data stay below.

    To read: the longer part of the bar is the one to work on. Lines that rise at the right end only say that a few
    data carry the loss.
    """
    first, second = as_array(approximation, "approximation", 1), as_array(amortisation, "amortisation", 1)
    check_same_shape(second, first.shape, "amortisation")
    figure = new_figure(height=4.6)
    top, bottom = figure.subplots(2, 1, height_ratios=(1, 2.4))
    _draw_bar(top, means)
    _draw_quantiles(bottom, first, second)
    set_heading(figure, f"The gap of {count_data(len(first))}, in nats per datum")
    return figure


def _draw_bar(axes: Axes, means: tuple[Mean, Mean]) -> None:
    polish(axes, num_ticks=5)
    left = 0.0
    for mean, colour, height in zip(means, (BLUE, ORANGE), (0.12, -0.12), strict=True):
        axes.barh(0, mean.value, left=left, height=0.6, color=colour)
        left += mean.value
        # whiskers apart: around a small part they would lie on each other
        axes.errorbar(left, height, xerr=mean.error or 0.0, color=INK, lw=1.2, capsize=3)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_ylim(-0.5, 0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    names = ("approximation", "amortisation")
    total = sum(mean.value for mean in means)
    set_note(axes, f"mean {total:.3g} = " + " + ".join(f"{m.value:.3g} {n}" for m, n in zip(means, names, strict=True)))


@styled
def total_gap(total: ArrayLike, mean: Mean) -> Figure:
    """The gap of each datum, (N,) in nats, where it is not known what it is made of.

    To read: at 80 % is the gap that 80 % of the data stay below; a line that rises at the right end only says that a
    few data carry the loss.
    """
    values = as_array(total, "total", 1)
    figure = new_figure(height=3.0)
    axes = figure.subplots()
    polish(axes, num_ticks=5)
    _draw_line(axes, values, INK, "total", "-")
    _scale(axes, values)
    set_heading(figure, f"The gap of {count_data(len(values))}, in nats per datum")
    set_note(axes, f"mean {mean.value:.3g}" + (f" ± {mean.error:.2g}" if mean.error else ""))
    return figure


def _draw_quantiles(axes: Axes, approximation: Floats, amortisation: Floats) -> None:
    polish(axes, num_ticks=5)
    total = approximation + amortisation
    _draw_line(axes, total, INK, "total", "-")
    _draw_line(axes, approximation, BLUE, "approximation (the guide's family)", "-")
    _draw_line(axes, amortisation, ORANGE, "amortisation (its encoder)", "--")
    _scale(axes, total)
    axes.legend(loc="upper left", fontsize=9)


def _draw_line(axes: Axes, values: Floats, colour: str, name: str, line: str) -> None:
    share = 100 * (np.arange(len(values)) + 0.5) / len(values)
    axes.plot(share, np.sort(values), color=colour, ls=line, label=name, marker="o" if len(values) < 3 else None)


def _scale(axes: Axes, total: Floats) -> None:
    middle = float(np.median(np.abs(total)))
    if np.abs(total).max() > _WIDE * middle > 0:
        axes.set_yscale("symlog", linthresh=10 ** np.floor(np.log10(middle)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the data with a smaller gap, %")
    axes.set_ylabel("nats")
