"""Data beside what the model makes of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from probvae.report.drawing.arrays import Floats, as_array, check_same_shape, data_limits, feature_titles, padded
from probvae.report.drawing.points import RASTERIZE_ABOVE
from probvae.report.drawing.style import BLUE, SPINE, WIDTH, count_data, hide_ticks, new_figure, set_heading, styled
from probvae.report.drawing.tiles import (
    as_images,
    count_features,
    feature_panels,
    gap_for,
    is_table,
    offsets,
    show,
    tile,
)

MAX_COLUMNS = 8
MAX_PAIRS = 24


@styled
def reconstructions(
    x: ArrayLike,
    reconstruction: ArrayLike,
    image_shape: tuple[int, ...] | None,
    feature_names: Sequence[str] | None = None,
) -> Figure:
    """The data ``x`` (N, D) and their ``reconstruction`` (N, D), in the units of x.

    Drawn for pictures (``image_shape`` such as (28, 28), (1, 28, 28) or (3, 32, 32)): the first 24 data, a
    row of data above the row of their reconstructions, both in the grey scale of the data; missing pixels
    are white. Drawn for tables (``image_shape`` None): reconstructed against original values for the first
    twelve features, with the line on which both are equal.

    To read: what is missing in the lower rows does not pass through z. In a table, points on the line are
    reconstructed exactly; a level cloud is a feature of which z knows nothing.
    """
    data = as_array(x, "x", 2)
    model = as_array(reconstruction, "reconstruction", 2)
    check_same_shape(model, data.shape, "reconstruction")
    if is_table(image_shape):
        return _draw_features(data, model, feature_titles(feature_names, data.shape[1]))
    assert image_shape is not None
    return _draw_pairs(data, model, image_shape)


def _draw_pairs(data: Floats, model: Floats, image_shape: tuple[int, ...]) -> Figure:
    num_shown = min(len(data), MAX_PAIRS)
    limits = data_limits(data[:num_shown])
    upper = as_images(data[:num_shown], image_shape, limits)
    lower = as_images(model[:num_shown], image_shape, limits)
    height, width = upper.shape[1:3]
    columns = min(num_shown, MAX_COLUMNS)
    num_rows = -(-num_shown // columns)
    gap = gap_for(width)
    tops = offsets(2 * num_rows, height, gap, every=2, extra=max(2 * gap, height // 4))
    lefts = offsets(columns, width, gap)
    canvas = tile(_interleave(upper, lower, columns), tops, lefts)

    inches = min((WIDTH - 1.1) / canvas.shape[1], 1.2 / width)
    figure = new_figure(height=0.6 + canvas.shape[0] * inches)
    axes = figure.add_subplot()
    hide_ticks(axes)
    show(axes, canvas, limits)
    axes.set_anchor("W")
    axes.set_yticks(tops + (height - 1) / 2, labels=["data", "model"] * num_rows)
    set_heading(figure, f"Reconstructions, {_count(num_shown, len(data))}")
    return figure


def _interleave(upper: Floats, lower: Floats, columns: int) -> Floats:
    """A row of ``upper``, the same row of ``lower``, the next of ``upper``, ...; blank where data end."""
    blank = -len(upper) % columns
    fill = np.full((blank, *upper.shape[1:]), np.nan if upper.ndim == 3 else 1.0)
    rows = [np.concatenate([part, fill]).reshape(-1, columns, *upper.shape[1:]) for part in (upper, lower)]
    return np.stack(rows, axis=1).reshape(-1, *upper.shape[1:])


def _count(num_shown: int, num_data: int) -> str:
    return count_data(num_data) if num_shown == num_data else f"first {num_shown} of {count_data(num_data)}"


def _draw_features(data: Floats, model: Floats, titles: list[str]) -> Figure:
    figure, panels = feature_panels(titles)
    for index, panel in enumerate(panels):
        limits = padded(*data_limits(data[:, index], model[:, index]))
        there = np.isfinite(data[:, index]) & np.isfinite(model[:, index])
        panel.plot(limits, limits, color=SPINE, linewidth=1, zorder=1)
        panel.scatter(
            data[there, index],
            model[there, index],
            s=float(np.clip(1500 / len(data), 2, 14)),
            color=BLUE,
            alpha=0.6,
            linewidths=0,
            rasterized=len(data) * len(panels) > RASTERIZE_ABOVE,
            zorder=2,
        )
        panel.set(xlim=limits, ylim=limits, box_aspect=1)
    figure.supxlabel("data", fontsize=11)
    figure.supylabel("model", fontsize=11)
    rest = count_features(len(titles))
    set_heading(figure, "Reconstruction against data (units of x)" + (f",\n{rest}" if rest else ""))
    return figure
