"""The latent plane: where the guide puts the data; for one latent, a line."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import ArrayLike, NDArray

from probvae.report.drawing.arrays import Floats, as_array, check_same_shape, data_limits, padded
from probvae.report.drawing.classes import Classes, read_labels
from probvae.report.drawing.points import draw_points, spread
from probvae.report.drawing.style import (
    BLUE,
    GREY,
    PALE,
    WIDTH,
    count_data,
    new_figure,
    polish,
    set_heading,
    set_note,
    shorten,
    styled,
)


@styled
def latent_plane(means: ArrayLike, labels: ArrayLike | None = None, *, scales: ArrayLike | None = None) -> Figure:
    """The posterior means g(x) of the data in the latent plane, in the units of z.

    ``means`` is (N, d), ``labels`` (N,) of any type or None, ``scales`` (N, d) the posterior standard
    deviations. For d > 2 the two dimensions in which the means vary most are drawn, and the axes say which
    (counted from 1); for d = 1, a row for each class or a histogram.

    Drawn: a point for each datum, coloured by its label (a legend up to twenty classes, a colour bar
    beyond); discs of 1 and 2 standard deviations of the standard normal prior; for up to 100 data spread
    evenly over the rows, the ellipse of 1 posterior standard deviation.

    To read: with a good fit the means fill about the inner disc and, with their ellipses, look like the
    prior. All means at the centre with ellipses as large as the inner disc: the dimension is not used.
    Rows with a value that is not finite are left out.
    """
    points = as_array(means, "means", 2)
    classes = None if labels is None else read_labels(labels, len(points))
    widths = None if scales is None else as_array(scales, "scales", 2)
    if widths is not None:
        check_same_shape(widths, points.shape, "scales")
    if points.shape[1] == 1:
        return _draw_strip(points[:, 0], classes, None if widths is None else widths[:, 0])
    return _draw_plane(points, classes, widths)


def _draw_plane(points: Floats, classes: Classes | None, scales: Floats | None) -> Figure:
    rows = np.flatnonzero(np.isfinite(points).all(axis=1))
    dimensions = _widest_dimensions(points[rows])
    figure = new_figure(height=WIDTH + (0.4 if classes is None else 0.9))
    axes = figure.add_subplot()
    polish(axes)
    axes.set_aspect("equal", adjustable="datalim")
    _draw_prior(axes)
    shown = _draw_ellipses(axes, points[:, dimensions], scales, dimensions, rows)
    # mixed order: the class that comes last in the data would cover the others
    order = np.random.default_rng(0).permutation(rows)
    draw_points(figure, axes, points[order][:, dimensions], classes, order)
    _label_dimensions(axes, dimensions, points.shape[1])
    set_heading(figure, f"Posterior means of {count_data(len(rows))} (units of z)")
    set_note(axes, "shaded: 1 and 2 sd of the prior" + _ellipse_note(shown, len(rows)))
    axes.autoscale_view()
    return figure


def _widest_dimensions(points: Floats) -> list[int]:
    num_dimensions = points.shape[1]
    if num_dimensions == 2 or not len(points):
        return [0, 1]
    # stable: equal variances keep the dimensions' order
    return [int(index) for index in np.argsort(-points.var(axis=0), kind="stable")[:2]]


def _label_dimensions(axes: Axes, dimensions: list[int], num_dimensions: int) -> None:
    texts = [f"$z_{{{dimension + 1}}}$" for dimension in dimensions]
    if num_dimensions > 2:
        texts[0] += f"  (largest variance of {num_dimensions} dimensions)"
        texts[1] += f"  (second largest of {num_dimensions})"
    axes.set_xlabel(texts[0])
    axes.set_ylabel(texts[1])


def _draw_prior(axes: Axes) -> None:
    for radius in (2.0, 1.0):
        axes.add_patch(Circle((0, 0), radius, facecolor=PALE, alpha=0.3, linewidth=0, zorder=0))


def _draw_ellipses(
    axes: Axes, centres: Floats, scales: Floats | None, dimensions: list[int], rows: NDArray[np.int64]
) -> int:
    """Ellipses of 1 sd for some of ``rows``; returns how many."""
    if scales is None:
        return 0
    rows = spread(rows[np.isfinite(scales[rows][:, dimensions]).all(axis=1)])
    widths, heights = 2 * scales[rows][:, dimensions].T
    ellipses = EllipseCollection(
        widths,
        heights,
        np.zeros(len(rows)),
        units="xy",
        offsets=centres[rows],
        offset_transform=axes.transData,
        facecolors="none",
        edgecolors=GREY,
        linewidths=0.5,
        alpha=0.45,
        zorder=1,
    )
    axes.add_collection(ellipses, autolim=False)
    # the collection's own idea of its limits depends on the view; these are the ellipses' boxes
    half = np.stack([widths, heights], axis=1) / 2
    axes.update_datalim(np.concatenate([centres[rows] - half, centres[rows] + half]))
    return len(rows)


def _ellipse_note(shown: int, num_rows: int) -> str:
    if not shown:
        return ""
    return "; ellipses: 1 sd of the posterior" + (f" ({shown} data)" if shown < num_rows else "")


def _draw_strip(means: Floats, classes: Classes | None, scales: Floats | None) -> Figure:
    """Rows of points, one a class; a histogram without classes; the prior's 1 and 2 sd behind."""
    rows = np.flatnonzero(np.isfinite(means))
    by_class = classes is not None and classes.is_small
    lanes = len(classes.names) + bool((classes.codes < 0).any()) if classes and by_class else 1
    with_bar = classes is not None and not by_class
    figure = new_figure(height=2.0 + 0.3 * max(lanes, 3) + 0.8 * with_bar)
    axes = figure.add_subplot()
    polish(axes)
    _draw_prior_line(axes, means[rows])
    if classes is None:
        _draw_histogram(axes, means[rows])
    else:
        _draw_lanes(figure, axes, means, classes, rows, scales)
    axes.set_xlabel("$z_1$")
    set_heading(figure, f"Posterior means of {count_data(len(rows))} (units of z)")
    set_note(axes, "shaded: 1 and 2 sd of the prior" + _bar_note(classes, scales))
    return figure


def _draw_prior_line(axes: Axes, means: Floats) -> None:
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
