"""The training: its last epochs, the residuals that a learned c should have, and the gaps of training rows."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from probvae.report.drawing.arrays import as_array
from probvae.report.drawing.style import BLUE, INK, ORANGE, new_figure, polish, set_heading, set_note, styled

# A gap beyond this ratio of the largest to the median would press most of the others to the axis.
_WIDE = 20.0


@styled
def residual_ratios(ratio: ArrayLike) -> Figure:
    """The squared residual of each datum, (N,) in units of the learned c, from the smallest to the largest.

    To read: the dashed line is their mean, and the dotted line the 1 that it should be.
    """
    values = np.sort(as_array(ratio, "ratio", 1))
    figure = new_figure(height=3.0)
    axes = figure.subplots()
    polish(axes, num_ticks=5)
    axes.plot(100 * (np.arange(len(values)) + 0.5) / len(values), values, color=BLUE, marker="o" * (len(values) < 3))
    axes.axhline(values.mean(), color=BLUE, ls="--", lw=1.2)
    axes.axhline(1, color=INK, ls=":", lw=1.2)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the data with a smaller residual, %")
    axes.set_ylabel("in units of c")
    set_heading(figure, "Squared residuals in units of the learned c")
    set_note(axes, f"mean {values.mean():.3g}, should be 1")
    return figure


@styled
def bound_by_epoch(bound: ArrayLike, num_last: int) -> Figure:
    """The bound after each epoch, (E,) in nats per datum, and the line through the last ``num_last``.

    To read: where the line rises, more epochs would win more.
    """
    values = as_array(bound, "bound", 1)
    epochs = np.arange(1, len(values) + 1)
    figure = new_figure(height=3.0)
    axes = figure.subplots()
    polish(axes, num_ticks=5)
    axes.plot(epochs, values, color=BLUE)
    last = epochs[-num_last:]
    axes.plot(last, np.polyval(np.polyfit(last, values[-num_last:], 1), last), color=ORANGE, lw=2)
    # The first epochs rise so far that the last ones would look flat.
    shown = values[len(values) // 5 :]
    room = 0.05 * float(np.ptp(shown)) or 1.0
    axes.set_ylim(float(shown.min()) - room, float(values.max()) + room)
    axes.set_xlabel("epoch")
    axes.set_ylabel("nats")
    set_heading(figure, "The bound after each epoch")
    return figure


@styled
def gaps_side_by_side(training: ArrayLike, held_out: ArrayLike) -> Figure:
    """The gaps of training rows (N,) and of held-out rows (M,), in nats, each from the smallest to the largest.

    To read: a held-out line above the other one is an encoder that has overfitted.
    """
    lines = ((training, "training", BLUE, "-"), (held_out, "held-out", ORANGE, "--"))
    figure = new_figure(height=3.2)
    axes = figure.subplots()
    polish(axes, num_ticks=5)
    every = []
    for gaps, name, colour, style in lines:
        values = np.sort(as_array(gaps, name, 1))
        every.append(values)
        share = 100 * (np.arange(len(values)) + 0.5) / len(values)
        axes.plot(share, values, color=colour, ls=style, label=f"{name} rows", marker="o" * (len(values) < 3))
    size = np.abs(np.concatenate(every))
    middle = float(np.median(size))
    if size.max() > _WIDE * middle > 0:
        axes.set_yscale("symlog", linthresh=10 ** np.floor(np.log10(middle)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the data with a smaller gap, %")
    axes.set_ylabel("nats")
    axes.legend(loc="upper left", fontsize=9)
    set_heading(figure, "The gap on training rows and on held-out rows")
    return figure
