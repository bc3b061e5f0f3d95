"""The latent line: posterior means of a one-dimensional z."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from probvae.report.drawing.arrays import Floats, data_limits, padded
from probvae.report.drawing.classes import Classes
from probvae.report.drawing.points import draw_points, spread
from probvae.report.drawing.style import (
    BLUE,
    GREY,
    PALE,
    count_data,
    new_figure,
    polish,
    set_heading,
    set_note,
    shorten,
)


def draw_strip(means: Floats, classes: Classes | None, scales: Floats | None) -> Figure:
    """Rows of points, one a class; a histogram without classes; the prior's 1 and 2 sd behind."""
    rows = np.flatnonzero(np.isfinite(means))
    by_class = classes is not None and classes.is_small
    lanes = len(classes.names) + bool((classes.codes < 0).any()) if classes and by_class else 1
    with_bar = classes is not None and not by_class
    figure = new_figure(height=2.0 + 0.3 * max(lanes, 3) + 0.8 * with_bar)
    axes = figure.add_subplot()
    polish(axes)
    _draw_prior(axes, means[rows])
    if classes is None:
        _draw_histogram(axes, means[rows])
    else:
        _draw_lanes(figure, axes, means, classes, rows, scales)
    axes.set_xlabel("$z_1$")
    set_heading(figure, f"Posterior means of {count_data(len(rows))} (units of z)")
    set_note(axes, "shaded: 1 and 2 sd of the prior" + _bar_note(classes, scales))
    return figure


def _draw_prior(axes: Axes, means: Floats) -> None:
    for radius in (2.0, 1.0):
        axes.axvspan(-radius, radius, color=PALE, alpha=0.3, linewidth=0, zorder=0)
    axes.set_xlim(*padded(*data_limits(means, np.array([-2.0, 2.0]))))


def _draw_histogram(axes: Axes, means: Floats) -> None:
    low, high = data_limits(means)
    axes.hist(means, bins=40, range=(low, high), color=BLUE, zorder=2)
    axes.set_ylabel("number of data")


def _draw_lanes(
    figure: Figure,
    axes: Axes,
    means: Floats,
    classes: Classes,
    rows: NDArray[np.int64],
    scales: Floats | None,
) -> None:
    """Points scattered about their class's row; the scatter has no meaning, it keeps them apart."""
    height = classes.codes.astype(np.float64) if classes.is_small else np.zeros(len(means))
    height = height + np.random.default_rng(0).uniform(-0.3, 0.3, len(means))
    if scales is not None:
        barred = spread(rows[np.isfinite(scales[rows])])
        axes.errorbar(
            means[barred],
            height[barred],
            xerr=scales[barred],
            fmt="none",
            ecolor=GREY,
            elinewidth=0.5,
            alpha=0.5,
        )
    points = np.stack([means[rows], height[rows]], axis=1)
    draw_points(figure, axes, points, classes, rows, legend=False)
    _name_lanes(axes, classes)


def _name_lanes(axes: Axes, classes: Classes) -> None:
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if not classes.is_small:
        return
    missing = bool((classes.codes < 0).any())
    names = (["no label"] if missing else []) + [shorten(name) for name in classes.names]
    axes.set_yticks(range(-missing, len(classes.names)), labels=names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(classes.names) - 0.5, -missing - 0.5)  # the first class on top


def _bar_note(classes: Classes | None, scales: Floats | None) -> str:
    return "" if classes is None or scales is None else "; lines: 1 sd of the posterior"
