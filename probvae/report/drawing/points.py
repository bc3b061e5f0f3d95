"""Points coloured by class, with the legend or the colour bar that explains them."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from probvae.report.drawing.arrays import Floats, data_limits
from probvae.report.drawing.classes import MISSING_COLOUR, Classes, class_colour, class_marker
from probvae.report.drawing.style import BLUE, GREY, SEQUENTIAL, shorten

MAX_POSTERIORS = 100
RASTERIZE_ABOVE = 2000  # an SVG with more points is slow to open
LEGEND_CHARACTERS = 56


def spread(rows: NDArray[np.int64], most: int = MAX_POSTERIORS) -> NDArray[np.int64]:
    """At most ``most`` of ``rows``, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)]


def draw_points(
    figure: Figure,
    axes: Axes,
    points: Floats,
    classes: Classes | None,
    rows: NDArray[np.int64],
    *,
    legend: bool = True,
) -> None:
    """``points`` (len(rows), 2) in the colours of ``rows``, and what explains them."""
    if classes is None:
        _scatter(axes, points, color=BLUE)
    elif classes.is_small:
        _scatter_classes(axes, points, classes.codes[rows])
        if legend:
            _add_legend(figure, classes)
    else:
        _scatter_numbers(figure, axes, points, classes, classes.numbers()[rows])


def _scatter(axes: Axes, points: Floats, **colours: Any) -> PathCollection:
    size = float(np.clip(16000 / max(len(points), 1), 3, 26))
    rasterized = len(points) > RASTERIZE_ABOVE
    return axes.scatter(
        points[:, 0],
        points[:, 1],
        s=size,
        linewidths=0,
        alpha=0.85,
        rasterized=rasterized,
        zorder=2,
        **colours,
    )


def _scatter_classes(axes: Axes, points: Floats, codes: NDArray[np.int64]) -> None:
    second = codes >= 10
    for here in (~second, second):
        if here.any():
            colours = [class_colour(code) for code in codes[here]]
            _scatter(axes, points[here], c=colours, marker=class_marker(int(codes[here][0])))


def _scatter_numbers(figure: Figure, axes: Axes, points: Floats, classes: Classes, numbers: Floats) -> None:
    low, high = data_limits(numbers)
    colours = matplotlib.colormaps[SEQUENTIAL].with_extremes(bad=MISSING_COLOUR)
    image = _scatter(axes, points, c=numbers, cmap=colours, vmin=low, vmax=high, plotnonfinite=True)
    bar = figure.colorbar(image, ax=axes, label="label", location="bottom", shrink=0.8, aspect=35)
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=GREY, labelcolor=GREY, labelsize=9.5)
    if not classes.is_numeric:
        ranks = spread(np.arange(len(classes.names)), 4)  # the names of more would overlap
        bar.set_ticks(ranks.tolist(), labels=[shorten(classes.names[rank], 14) for rank in ranks])


def _add_legend(figure: Figure, classes: Classes) -> None:
    codes = list(range(len(classes.names))) + ([-1] if (classes.codes < 0).any() else [])
    names = [shorten(classes.names[code]) if code >= 0 else "no label" for code in codes]
    handles = [Line2D([], [], linestyle="", marker=class_marker(code), color=class_colour(code)) for code in codes]
    columns = _num_columns(names)
    legend = figure.legend(
        handles=handles,
        labels=[str(code) for code in codes],
        loc="outside lower center",
        ncols=columns,
        handletextpad=0.1,
        columnspacing=1.0,
    )
    # not as labels: matplotlib leaves out those that begin with an underscore
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def _num_columns(names: list[str]) -> int:
    """As many columns as fit the width, in rows of about equal length: ten digits are two rows of five."""
    if not names:
        return 1
    fitting = max(1, min(len(names), LEGEND_CHARACTERS // (max(map(len, names)) + 5), 10))
    num_rows = -(-len(names) // fitting)
    return -(-len(names) // num_rows)
