"""Runs beside each other."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probvae.report.drawing.arrays import Floats
from probvae.report.drawing.style import (
    BLUE,
    CLASS_COLOURS,
    GREY,
    INK,
    ORANGE,
    PALE,
    SMALL,
    new_figure,
    polish,
    set_heading,
    set_note,
    styled,
)

Estimate = tuple[float, float | None]
_LABEL_CHARACTERS = 26
# So many lines of equal ELBO are drawn.
_NUM_LINES = 5


class RatePoint(NamedTuple):
    """One run: the ``line`` it is on, its ``name`` there, its rate and its distortion in nats per datum."""

    line: str
    name: str
    rate: float
    distortion: float


@styled
def paired_differences(
    names: Sequence[str], elbo: Sequence[Estimate | None], evidence: Sequence[Estimate | None], baseline: str
) -> Figure:
    """Differences to the baseline in ELBO and evidence, with bars of two standard errors.

    To read: right of the line is better than the baseline; a bar that crosses the line says that the data do not
    tell the two runs apart.
    """
    labels = [textwrap.fill(name, _LABEL_CHARACTERS) for name in names]
    lines = sum(max(2, label.count("\n") + 1) for label in labels)
    figure = new_figure(height=1.5 + 0.2 * lines + 0.1 * len(names))
    axes = figure.subplots()
    polish(axes, num_ticks=5)
    place = np.arange(len(names))[::-1]
    for values, colour, shift, label in ((elbo, BLUE, 0.13, "ELBO"), (evidence, ORANGE, -0.13, "log p(x)")):
        rows = [(y, value[0], value[1] or 0.0) for y, value in zip(place, values, strict=True) if value is not None]
        if rows:
            y, value, error = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
            axes.errorbar(value, y + shift, xerr=2 * error, fmt="o", ms=5, color=colour, lw=1.4, capsize=3, label=label)
    axes.axvline(0, color=INK, lw=0.8, zorder=0)
    axes.set_yticks(place, labels, fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("nats per datum (bars: 2 standard errors)")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower right", ncols=2, fontsize=9)
    set_heading(figure, "Difference to " + textwrap.fill(baseline, 40))
    return figure


@styled
def rate_distortion(points: Sequence[RatePoint]) -> Figure:
    """KL(q_x || p) against -E log p(x|z), one point a run, with lines of equal ELBO.

    To read: the ELBO is minus the sum of both, so it rises toward the lower left, and points on one dashed line are
    equally good bounds that spend their nats differently: left little in the code, right much. Runs that differ in c
    or beta only are joined, from the smallest rate to the largest.
    Source: Alemi et al. (2018), "Fixing a Broken ELBO", arXiv:1711.00464.
    """
    lines = list(dict.fromkeys(point.line for point in points))
    figure = new_figure(height=4.0 + 0.22 * len(lines) * (len(lines) > 1))
    axes = figure.subplots()
    polish(axes, num_ticks=5)
    for number, line in enumerate(lines):
        _draw_line(axes, [point for point in points if point.line == line], line, _colour(number), number % 2 == 0)
    rate, distortion = (np.array([getattr(point, what) for point in points]) for what in ("rate", "distortion"))
    _set_limits(axes, rate, distortion)
    _draw_equal_bounds(axes)
    if len(lines) > 1:
        figure.legend(loc="outside lower left", fontsize=9)
    axes.set_xlabel("rate: KL(q || p), nats per datum")
    axes.set_ylabel("distortion: -E log p(x|z), nats per datum")
    set_heading(figure, "Rate and distortion")
    set_note(axes, "dashed: equal ELBO, with its value")
    return figure


def _colour(number: int) -> str:
    return (BLUE, ORANGE, *CLASS_COLOURS[2:])[number % len(CLASS_COLOURS)]


def _draw_line(axes: Axes, points: Sequence[RatePoint], line: str, colour: str, above: bool) -> None:
    points = sorted(points, key=lambda point: point.rate)
    axes.plot([p.rate for p in points], [p.distortion for p in points], "o-", color=colour, ms=5, lw=1, label=line)
    # Neighbouring lines have their names on different sides: one above, the other below.
    place: dict[str, Any] = {"xytext": (5, 4 if above else -4), "va": "bottom" if above else "top"}
    place["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}  # the line passes behind
    for point in points:
        axes.annotate(
            point.name,
            (point.rate, point.distortion),
            textcoords="offset points",
            fontsize=SMALL,
            color=colour,
            **place,
        )


def _set_limits(axes: Axes, rate: Floats, distortion: Floats) -> None:
    wide, high = (max(float(np.ptp(values)), 1e-2 * float(np.abs(values).max()), 1e-3) for values in (rate, distortion))
    axes.set_xlim(rate.min() - 0.12 * wide, rate.max() + 0.3 * wide)  # names stand right of their points
    axes.set_ylim(distortion.min() - 0.15 * high, distortion.max() + 0.15 * high)


def _draw_equal_bounds(axes: Axes) -> None:
    """Rate + distortion = const, at round numbers, each with its ELBO at the right or the lower edge."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for total in _round_numbers(left + low, right + high):
        axes.plot([left, right], [total - left, total - right], color=PALE, lw=0.8, ls="--", zorder=0, scalex=False)
        y = total - right
        where, align = ((right, y), ("right", "bottom")) if y >= low else ((total - low, low), ("left", "bottom"))
        if y < high and where[0] > left + 0.1 * (right - left):
            axes.annotate(
                f"{0.0 - total:.6g}",
                where,
                fontsize=8,
                color=GREY,
                ha=align[0],
                va=align[1],
                zorder=0,
                annotation_clip=True,
            )
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def _round_numbers(low: float, high: float) -> Floats:
    rough = (high - low) / _NUM_LINES
    size = 10.0 ** np.floor(np.log10(rough))
    step = min((s * size for s in (1.0, 2.0, 5.0, 10.0)), key=lambda s: abs(np.log(s / rough)))
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
