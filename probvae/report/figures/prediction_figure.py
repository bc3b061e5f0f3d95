"""The data beside data that the model makes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from probvae.report.drawing.arrays import Floats, as_array, check_same_shape, data_limits, finite, padded
from probvae.report.drawing.style import (
    BLUE,
    INK,
    ORANGE,
    PALE,
    SMALL,
    WIDTH,
    hide_ticks,
    new_figure,
    polish,
    set_heading,
    set_note,
    styled,
)
from probvae.report.drawing.tiles import as_images, gap_for, offsets, show, tile

_COLUMNS = 3
_NUM_BINS = 24
_MAX_IMAGES = 8


@styled
def replicated_statistics(
    names: Sequence[str], observed: ArrayLike, replicated: ArrayLike, p_values: ArrayLike
) -> Figure:
    """Each statistic of the data, ``observed`` (K,), among those of R data sets from the model, ``replicated`` (R, K).

    To read: the orange line is the data, the histogram what data sets of the same size from the model have. The line
    should stand inside; p is the share of them that is as far out, on both sides. Several panels are looked at here:
    one small p among ten says little.
    """
    values, sets = as_array(observed, "observed", 1), as_array(replicated, "replicated", 2)
    p = as_array(p_values, "p_values", 1)
    for name, array, shape in (("observed", values, (len(names),)), ("p_values", p, (len(names),))):
        check_same_shape(array, shape, name)
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(height=1.0 + 1.25 * rows, width=max(WIDTH * columns / _COLUMNS, 3.4))
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, name, value, column, share in zip(panels, names, values, sets.T, p, strict=False):
        _draw_statistic(panel, value, column)
        panel.set_title(f"{name}\np = {share:.2g}", fontsize=SMALL)
    for panel in panels[len(names) :]:
        panel.remove()
    handles = [Patch(color=PALE, label="from the model"), Line2D([], [], color=ORANGE, label="these data")]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    set_heading(figure, "Statistics of the data and of replicates")
    return figure


def _draw_statistic(panel: Axes, value: float, column: Floats) -> None:
    polish(panel, num_ticks=3)
    there = finite(column)
    # with an edge, a histogram far from the line is more than a hair
    panel.hist(there, bins=_bins(there), color=PALE, edgecolor=PALE, linewidth=1.2, histtype="stepfilled")
    panel.axvline(value, color=ORANGE, lw=2)
    panel.set_xlim(*padded(*data_limits(there, np.array([value])), share=0.08))
    panel.set_yticks([])
    panel.spines["left"].set_visible(False)


def _bins(values: Floats) -> list[float]:
    return np.linspace(*data_limits(values), _NUM_BINS + 1).tolist()


@styled
def evidence_curves(log_p: ArrayLike, simulated: ArrayLike) -> Figure:
    """The share of data, and of data simulated from the model, that are at most so probable (two ECDFs).

    ``log_p`` (N,) and ``simulated`` (M,) are log p(x) in nats.

    To read: both lines should lie on each other. Data (blue) at the left: the model does not make what is in them. Data
    at the right: the model makes more, or noisier, data than these. A blue line that begins far at the left and then
    joins the other: a few anomalies.
    """
    ours, model = (
        np.sort(finite(as_array(values, name, 1))) for values, name in ((log_p, "log_p"), (simulated, "simulated"))
    )
    figure = new_figure(height=3.3)
    axes = figure.add_subplot()
    polish(axes)
    for values, colour, label in ((model, INK, "simulated from the model"), (ours, BLUE, "these data")):
        axes.ecdf(values, color=colour, label=label)
    axes.set_xlim(*padded(*data_limits(ours, model)))
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("log p(x), nats")
    set_note(axes, "share of data that are at most so probable")
    figure.legend(loc="outside lower left", ncols=2)
    set_heading(figure, "Are these data typical of the model?")
    return figure


@styled
def typical_images(
    groups: Sequence[tuple[str, ArrayLike]], image_shape: tuple[int, ...], limits: tuple[float, float]
) -> Figure:
    """A row of pictures for each of ``groups``: its name and its data (n, D), the first eight of them.

    ``limits`` is the grey scale. To read: what is odd about those that the model finds least probable?
    """
    rows = [as_images(as_array(x, name, 2)[:_MAX_IMAGES], image_shape, limits) for name, x in groups]
    height, width = rows[0].shape[1:3]
    columns = max(map(len, rows))
    blank = np.nan if rows[0].ndim == 3 else 1.0
    whole = [np.concatenate([row, np.full((columns - len(row), *row.shape[1:]), blank)]) for row in rows]
    gap = gap_for(width)
    tops = offsets(len(rows), height, gap, every=1, extra=max(gap, height // 6))
    canvas = tile(np.concatenate(whole), tops, offsets(columns, width, gap))
    inches = min((WIDTH - 1.3) / canvas.shape[1], 1.2 / width)
    figure = new_figure(height=0.6 + canvas.shape[0] * inches)
    axes = figure.add_subplot()
    hide_ticks(axes)
    show(axes, canvas, limits)
    axes.set_anchor("W")
    axes.set_yticks(tops + (height - 1) / 2, labels=[name for name, _ in groups])
    set_heading(figure, "Data that the model finds least and most probable")
    return figure
