"""The fitted model's own data: samples beside the data, and the decoded grid of the latent plane."""

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from probvae.errors import ArgumentError, ShapeError
from probvae.report.drawing.arrays import Floats, as_array, data_limits, feature_titles, finite, padded
from probvae.report.drawing.points import RASTERIZE_ABOVE
from probvae.report.drawing.style import BLUE, ORANGE, WIDTH, hide_ticks, new_figure, polish, set_heading, styled
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

MAX_IMAGES = 64
MAX_COLUMNS = 8
NUM_BINS = 30


@styled
def samples(
    x: ArrayLike,
    image_shape: tuple[int, ...] | None,
    *,
    data: ArrayLike | None = None,
    feature_names: Sequence[str] | None = None,
    point_name: str = "E[x|z]",
) -> Figure:
    """Samples ``x`` (N, D) of the model p(z) p(x|z), in the units of x; ``data`` (M, D) to compare with.

    Drawn for pictures: the first 64 samples, which should be means E[x|z], or what ``point_name`` says (the noise of a
    draw is white and hides them), in the grey scale of ``data`` where given. Drawn for tables
    (``image_shape`` None): with two features a scatter of the data below the samples; otherwise a histogram
    a feature for the first twelve (each of area one), filled for the data, a line for the samples.

    The axes hold all the data and the middle 98 % of the samples.

    To read: samples should look like data, none better than another. In a histogram, where the line leaves
    the filled area the model puts too much or too little there.
    """
    drawn = as_array(x, "x", 2)
    real = None if data is None else as_array(data, "data", 2)
    if real is not None and real.shape[1] != drawn.shape[1]:
        raise ShapeError(
            f"data: expected {drawn.shape[1]} columns as in x, got {real.shape[1]}. Pass the data of the fit."
        )
    if not is_table(image_shape):
        assert image_shape is not None
        return _draw_images(drawn, image_shape, data_limits(drawn if real is None else real), point_name)
    titles = feature_titles(feature_names, drawn.shape[1])
    return _draw_scatter(drawn, real, titles) if len(titles) == 2 else _draw_margins(drawn, real, titles)


def _draw_images(drawn: Floats, image_shape: tuple[int, ...], limits: tuple[float, float], point_name: str) -> Figure:
    images = as_images(drawn[:MAX_IMAGES], image_shape, limits)
    height, width = images.shape[1:3]
    columns = min(MAX_COLUMNS, ceil(sqrt(len(images))))
    gap = gap_for(width)
    tops = offsets(-(-len(images) // columns), height, gap)
    canvas = tile(images, tops, offsets(columns, width, gap))
    inches = min((WIDTH - 0.2) / canvas.shape[1], 1.2 / width)
    figure = new_figure(height=0.5 + canvas.shape[0] * inches)
    axes = figure.add_subplot()
    hide_ticks(axes)
    show(axes, canvas, limits)
    axes.set_anchor("W")
    set_heading(figure, f"{point_name} at {len(images)} draw{'s' * (len(images) > 1)} of z from the prior")
    return figure


def _draw_scatter(drawn: Floats, real: Floats | None, titles: list[str]) -> Figure:
    figure = new_figure(height=WIDTH)
    axes = figure.add_subplot()
    polish(axes)
    size = float(np.clip(8000 / len(drawn), 3, 24))
    if real is not None:
        _scatter(axes, real, BLUE, "data", size)
    _scatter(axes, drawn, ORANGE, "samples", size)
    axes.set_xlabel(titles[0])
    axes.set_ylabel(titles[1])
    axes.set_xlim(*padded(*_limits(drawn[:, 0], None if real is None else real[:, 0])))
    axes.set_ylim(*padded(*_limits(drawn[:, 1], None if real is None else real[:, 1])))
    _explain(figure, with_data=real is not None, marker="o")
    set_heading(figure, "Samples of the model (units of x)")
    return figure


def _scatter(axes: Axes, points: Floats, colour: str, name: str, size: float) -> None:
    points = points[np.isfinite(points).all(axis=1)]
    rasterized = len(points) > RASTERIZE_ABOVE
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=size,
        color=colour,
        alpha=0.6,
        linewidths=0,
        rasterized=rasterized,
        label=name,
    )


def _draw_margins(drawn: Floats, real: Floats | None, titles: list[str]) -> Figure:
    figure, panels = feature_panels(titles)
    for index, panel in enumerate(panels):
        column = None if real is None else real[:, index]
        bins = np.linspace(*_limits(drawn[:, index], column), NUM_BINS + 1)
        if column is not None:
            panel.stairs(_density(column, bins), bins, fill=True, color=BLUE, alpha=0.4, label="data")
        panel.stairs(_density(drawn[:, index], bins), bins, color=ORANGE, linewidth=1.6, label="samples")
        panel.set_ylim(bottom=0)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
    _explain(figure, with_data=real is not None, marker="s")
    rest = count_features(len(titles))
    set_heading(figure, "Samples of the model, density by feature (units of x)" + (f",\n{rest}" if rest else ""))
    return figure


def _limits(drawn: Floats, real: Floats | None) -> tuple[float, float]:
    """All of the data and the middle 98 % of the samples: one far sample must not squash the rest."""
    there = finite(drawn)
    middle = np.quantile(there, [0.01, 0.99]) if there.size else there
    return data_limits(middle if real is not None and finite(real).size else there, *([] if real is None else [real]))


def _density(values: Floats, bins: Floats) -> Floats:
    """Area one over all finite values, those outside the bins included."""
    values = finite(values)
    counts = np.histogram(values, bins)[0]
    return counts / (max(values.size, 1) * np.diff(bins))


def _explain(figure: Figure, *, with_data: bool, marker: str) -> None:
    names = [("data", BLUE), ("samples", ORANGE)] if with_data else [("samples", ORANGE)]
    handles = [Line2D([], [], linestyle="", marker=marker, color=colour, label=name) for name, colour in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handletextpad=0.1)


@styled
def decoded_grid(images: ArrayLike, image_shape: tuple[int, ...], extent: tuple[float, float]) -> Figure:
    """The decoder's mean picture f(z) on a square grid of the latent plane, ``extent`` in the units of z.

    ``images`` is (n, n, D): ``images[i, j]`` is f at z = (grid[j], grid[i]) with
    ``grid = linspace(low, high, n)`` and ``extent = (low, high)``. So z_1 grows to the right and z_2
    upwards, as in the latent plane.

    Drawn: one picture of n x n tiles without gaps; a tile's centre is its z.

    To read: neighbours should change little by little. A jump is a border between two clusters; wide areas
    of the same picture are latent space that is not used.
    """
    grid = as_array(images, "images", 3)
    num_rows, num_columns, num_pixels = grid.shape
    if num_rows != num_columns:
        raise ShapeError(f"images: expected shape (n, n, D), got {grid.shape}. Decode a square grid.")
    low, high = float(extent[0]), float(extent[1])
    if not (np.isfinite([low, high]).all() and low < high):
        raise ArgumentError(f"extent: expected low < high, got ({low}, {high}). Swap them or widen the grid.")

    limits = data_limits(grid)
    # the first row of a picture is its top, where z_2 is largest
    tiles = as_images(grid[::-1].reshape(-1, num_pixels), image_shape, limits)
    height, width = tiles.shape[1:3]
    canvas = tile(tiles, offsets(num_rows, height, 0), offsets(num_rows, width, 0))
    # the outermost tiles reach half a step beyond their centres
    half = (high - low) / (num_rows - 1) / 2 if num_rows > 1 else 0.0
    side = (low - half, high + half)

    figure = new_figure(height=0.9 + (WIDTH - 0.7) * height / width)
    axes = figure.add_subplot()
    polish(axes)
    show(axes, canvas, limits, extent=(*side, *side))
    axes.set_aspect(height / width)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("$z_1$")
    axes.set_ylabel("$z_2$")
    set_heading(figure, "Decoded latent plane (axes in units of z)")
    return figure
