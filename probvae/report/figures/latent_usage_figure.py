"""Latent usage: how much each latent carries, and whether the data fill the prior."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from probvae.report.drawing.arrays import Floats, as_array, check_same_shape, data_limits, padded
from probvae.report.drawing.points import RASTERIZE_ABOVE
from probvae.report.drawing.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    WIDTH,
    new_figure,
    polish,
    set_heading,
    set_note,
    set_remark,
    styled,
)

_NUM_BINS = 30
_MOST_TICKS = 16  # with more latents their numbers are on an axis
_LEAST_WIDTH = 4  # bars fit side by side, however few latents there are
_LIFT = 0.03  # as a share of the axis


@styled
def kl_by_dimension(kl: ArrayLike, standard_error: ArrayLike, active: Sequence[bool]) -> Figure:
    """KL(q(z_j) || p(z_j)) of each latent, averaged over the data, in nats per datum.

    ``kl`` and ``standard_error`` are (d,), ``active`` (d,) says which latents vary with x.

    To read: the height is what a datum says about z_j; bars of two standard errors. Grey latents are off: their
    posterior is the same for all data, they carry nothing, and the decoder does not use them.
    """
    heights, errors = as_array(kl, "kl", 1), as_array(standard_error, "standard_error", 1)
    on = np.asarray(active, dtype=bool)
    for name, values in (("standard_error", errors), ("active", on)):
        check_same_shape(values, heights.shape, name)
    figure = new_figure(height=3.0)
    axes = figure.add_subplot()
    polish(axes, num_ticks=5, integer_x=True)
    place = np.arange(1, len(heights) + 1)
    axes.bar(place, heights, width=0.8, color=np.where(on, BLUE, PALE))
    axes.errorbar(place, heights, yerr=2 * np.nan_to_num(errors), fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    axes.axhline(0, color=GREY, lw=0.8)
    room = max(0.0, (_LEAST_WIDTH - len(heights)) / 2)  # one bar alone would fill the picture
    axes.set_xlim(0.4 - room, len(heights) + 0.6 + room)
    if len(heights) <= _MOST_TICKS:
        _mark_off(axes, place[~on], heights[~on])
        axes.set_xticks(place, [f"$z_{{{j}}}$" for j in place])
        axes.tick_params(axis="x", length=0)
    else:
        axes.set_xlabel("latent")
    set_note(axes, "KL of each latent, nats per datum")
    set_remark(axes, f"{int(on.sum())} of {len(on)} active")
    set_heading(figure, "What the latents carry")
    return figure


def _mark_off(axes: Axes, place: Floats, heights: Floats) -> None:
    """A bar of no height could not be seen to be grey."""
    for x, height in zip(place, heights, strict=True):
        axes.text(x, max(height, 0.0) + _LIFT * axes.get_ylim()[1], "off", ha="center", fontsize=9, color=GREY)


@styled
def aggregate_posterior(z: ArrayLike, prior_z: ArrayLike, dimensions: Sequence[int]) -> Figure:
    """A draw of q_x for each datum, (N, d), with draws (M, d) of the prior, in one or two ``dimensions``.

    Drawn: for two dimensions a point a draw, and their histograms (of equal area) at the sides; for one dimension the
    histograms.

    To read: where model and guide are right, blue (the data's) and orange (the prior's) look the same. Orange without
    blue: samples of the model come from there, and no datum does. Blue without orange: data that the model hardly
    makes.
    """
    ours, prior = as_array(z, "z", 2), as_array(prior_z, "prior_z", 2)
    names = [f"$z_{{{j + 1}}}$" for j in dimensions]
    ours, prior = ours[:, list(dimensions)], prior[:, list(dimensions)]
    if len(names) == 1:
        figure = new_figure(height=3.0)
        axes = figure.add_subplot()
        polish(axes)
        _draw_histogram(axes, ours[:, 0], prior[:, 0])
        axes.set_xlabel(names[0])
    else:
        figure = _draw_plane(ours, prior, names)
    handles = [
        Line2D([], [], ls="", marker="o", color=colour, label=label)
        for colour, label in ((BLUE, "data: a draw of q(z|x) each"), (ORANGE, "prior"))
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, handletextpad=0.1)
    set_heading(figure, "Aggregate posterior and prior")
    return figure


def _draw_plane(ours: Floats, prior: Floats, names: list[str]) -> Figure:
    figure = new_figure(height=WIDTH + 0.2)
    grid = figure.add_gridspec(2, 2, width_ratios=[4.2, 1], height_ratios=[1, 4.2])
    axes = figure.add_subplot(grid[1, 0])
    above, beside = figure.add_subplot(grid[0, 0], sharex=axes), figure.add_subplot(grid[1, 1], sharey=axes)
    polish(axes)
    # the smaller set last, or it could not be seen
    layers = sorted(((ours, BLUE), (prior, ORANGE)), key=lambda layer: -len(layer[0]))
    for points, colour in layers:
        size = float(np.clip(6000 / len(points), 2, 16))
        rasterized = len(points) > RASTERIZE_ABOVE
        axes.scatter(points[:, 0], points[:, 1], s=size, color=colour, alpha=0.55, linewidths=0, rasterized=rasterized)
    _draw_histogram(above, ours[:, 0], prior[:, 0])
    _draw_histogram(beside, ours[:, 1], prior[:, 1], horizontal=True)
    for small in (above, beside):
        small.tick_params(labelbottom=False, labelleft=False, length=0)
        small.spines[:].set_visible(False)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    return figure


def _draw_histogram(axes: Axes, ours: Floats, prior: Floats, *, horizontal: bool = False) -> None:
    bins = np.linspace(*padded(*data_limits(ours, prior), share=0.01), _NUM_BINS + 1)
    orientation: Literal["horizontal", "vertical"] = "horizontal" if horizontal else "vertical"
    for values, colour, filled in ((ours, BLUE, True), (prior, ORANGE, False)):
        density = np.histogram(values, bins, density=True)[0]
        axes.stairs(density, bins, fill=filled, color=colour, alpha=0.4 if filled else 1.0, orientation=orientation)
    (axes.set_xlim if horizontal else axes.set_ylim)(0, None)
    (axes.set_xticks if horizontal else axes.set_yticks)([])
