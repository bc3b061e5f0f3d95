"""How often the guide's regions hold the truth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from probvae.report.drawing.arrays import Floats, as_array, check_same_shape, data_limits, padded
from probvae.report.drawing.style import (
    BLUE,
    CLASS_COLOURS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    SPINE,
    new_figure,
    polish,
    set_heading,
    set_note,
    styled,
)

_MAX_NAMED = 6
_MAX_POINTS = 600  # for each latent
_LEAST_LEFT = 1e-7  # as a share of the prior's variance
_FARTHEST = 6.0  # z-scores beyond it are drawn at the edge
_COVERAGE_COLOURS = (BLUE, ORANGE, GREEN, GREY)


@styled
def rank_differences(
    ranks: ArrayLike, log_weight_rank: ArrayLike, points: Floats, band: tuple[Floats, Floats]
) -> Figure:
    """The ECDF of the ranks of the true z among the guide's draws, less the uniform CDF.

    ``ranks`` (N, d) are in (0, 1), one column for each latent, ``log_weight_rank`` (N,) those of
    log p(x, z) - log q(z); ``band`` is that of a uniform ECDF at ``points`` (K,).

    To read: all lines should stay inside the grey band, which holds 95 % of all uniform samples as a whole. A line like
    an S is a guide that is too narrow (above the band at the left, below at the right) or too wide (the other way
    round); a line on one side is a guide with a biased mean. The log weights (black) see what single latents do not: a
    wrong correlation, or a guide that is equal to the prior; they then lie below the band.
    """
    columns, weights = as_array(ranks, "ranks", 2), as_array(log_weight_rank, "log_weight_rank", 1)
    check_same_shape(weights, columns.shape[:1], "log_weight_rank")
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    polish(axes)
    _draw_band(axes, points, band, below=points)
    curves = [_ecdf(column, points) - points for column in columns.T]
    _draw_latents(axes, points, curves)
    axes.plot(points, _ecdf(weights, points) - points, color=INK, lw=1.4, ls=(0, (4, 1.5)), label="log weight")
    axes.axhline(0, color=SPINE, lw=0.8, zorder=1)
    axes.set_xlim(0, 1)
    axes.set_xlabel("rank of the true z among the draws")
    set_note(axes, "share of ranks below, less what is expected")
    figure.legend(loc="outside right upper")
    set_heading(figure, "Is the true z one of the guide's draws?")
    return figure


@styled
def coverage_curves(levels: Mapping[str, ArrayLike], points: Floats, band: tuple[Floats, Floats]) -> Figure:
    """The share of true z inside the guide's regions, over the probability that these regions should have.

    ``levels`` has, for each kind of region, the contents (N,) of the regions on whose edge the true z lie; ``band`` is
    that of a uniform ECDF at ``points`` (K,).

    To read: lines on the diagonal, inside the grey band, are right. Below it the guide is too sure of itself, above it
    too unsure. The dotted lines mark 50, 90 and 95 %.
    """
    figure = new_figure(height=4.9, width=4.6)
    axes = figure.subplots()
    polish(axes)
    _draw_band(axes, points, band)
    for level in (0.5, 0.9, 0.95):
        axes.axvline(level, color=PALE, lw=0.8, ls=":", zorder=0)
    axes.plot([0, 1], [0, 1], color=SPINE, lw=0.8, zorder=1)
    for (name, values), colour in zip(levels.items(), _COVERAGE_COLOURS, strict=False):
        axes.plot(points, _ecdf(as_array(values, name, 1), points), color=colour, label=name)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("probability of the region under q")
    set_note(axes, "share of true z inside")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    set_heading(figure, "Coverage")
    return figure


@styled
def scores_and_contraction(scores: ArrayLike, contraction: ArrayLike) -> Figure:
    """The place of the true z in the guide's q, over how much was learnt about z; a point for each pair and latent.

    ``scores`` (N, d) are (z - E_q[z]) / sd_q[z], ``contraction`` (N, d) is 1 - Var_q[z] / Var_p[z]. Crosses are the
    means of each latent, with the standard deviation of its scores as a bar. Points are spread a little sideways.

    To read: each cloud should be centred on zero, with bars from -1 to 1. Longer bars are a guide that is too narrow,
    shorter ones a guide that is too wide, a cross off zero a biased mean. The further to the right, the more x tells
    of z; at a contraction of zero the latent is as uncertain as before: it is not used. Scores beyond 6 are drawn at 6.
    """
    points, learnt = as_array(scores, "scores", 2), as_array(contraction, "contraction", 2)
    check_same_shape(learnt, points.shape, "contraction")
    places = -np.log10(np.clip(1 - learnt, _LEAST_LEFT, None))
    low, high = padded(*data_limits(np.quantile(places, [0.005, 0.995], axis=0), np.zeros(1)), share=0.08, least=0.3)
    figure = new_figure(height=3.6)
    axes = figure.subplots()
    polish(axes)
    for line, colour in ((0, SPINE), (-1, PALE), (1, PALE)):
        axes.axhline(line, color=colour, lw=0.8, zorder=0)
    for j, (column, place) in enumerate(zip(points.T, places.T, strict=True)):
        _draw_cloud(axes, column, place, 0.015 * (high - low), _colour(j, points.shape[1]), f"$z_{{{j + 1}}}$")
    axes.set_xlim(low, high)
    _set_contraction_ticks(axes, low, high)
    axes.set_ylim(-_FARTHEST - 0.3, _FARTHEST + 0.3)
    axes.set_xlabel("contraction: 1 - Var$_q$[z] / Var$_p$[z]")
    set_note(axes, "z-score of the true z under q")
    if points.shape[1] <= _MAX_NAMED:
        figure.legend(loc="outside right upper")
    set_heading(figure, "What was learnt, and how far off it is")
    return figure


def _ecdf(values: Floats, points: Floats) -> Floats:
    return np.searchsorted(np.sort(values), points, side="right") / len(values)


def _draw_band(axes: Axes, points: Floats, band: tuple[Floats, Floats], below: Floats | float = 0.0) -> None:
    axes.fill_between(points, band[0] - below, band[1] - below, color="#ECECEC", lw=0, zorder=0, label="95 % band")


def _draw_latents(axes: Axes, points: Floats, curves: list[Floats]) -> None:
    """A colour for each of a few; of many, the worst one has a name."""
    worst = int(np.argmax([np.abs(curve).max() for curve in curves]))
    for j, curve in enumerate(curves):
        named = len(curves) <= _MAX_NAMED or j == worst
        colour = _colour(j, len(curves)) if len(curves) <= _MAX_NAMED else ORANGE if named else BLUE
        label = f"$z_{{{j + 1}}}$" if named else None
        axes.plot(points, curve, color=colour, lw=1.6 if named else 0.6, zorder=3 if named else 2, label=label)


def _draw_cloud(axes: Axes, score: Floats, place: Floats, spread: float, colour: str, name: str) -> None:
    shown = slice(None, None, -(-len(score) // _MAX_POINTS))
    y = np.clip(score[shown], -_FARTHEST, _FARTHEST)
    # Without the spread, the points of a guide with one variance for all data would lie on a line.
    x = place[shown] + spread * np.random.default_rng(0).uniform(-1, 1, len(y))
    axes.plot(x, y, ".", ms=3.5, alpha=0.4, color=colour, mew=0, zorder=1)
    bar: dict[str, Any] = {
        "ms": 8,
        "mec": "white",
        "mew": 0.8,
        "ecolor": INK,
        "elinewidth": 1.2,
        "capsize": 4,
        "zorder": 4,
    }
    axes.errorbar(np.median(place), score.mean(), yerr=score.std(), fmt="X", color=colour, label=name, **bar)


def _set_contraction_ticks(axes: Axes, low: float, high: float) -> None:
    """0, 0.9, 0.99: one a decade of what is left, and a few between where there are only two decades or so."""
    left = [1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01] if high - low < 2.5 else [10.0**-k for k in range(8)]
    ticks = [value for value in left if low <= -np.log10(value) <= high]
    axes.set_xticks([-np.log10(value) for value in ticks], [f"{1 - value:.8g}" for value in ticks])


def _colour(number: int, total: int) -> str:
    return CLASS_COLOURS[number % len(CLASS_COLOURS)] if total > 2 else (BLUE, ORANGE)[number]
