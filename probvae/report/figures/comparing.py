"""Runs beside each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from probvae.report.figures.style import BLUE, GREY, INK, ORANGE, new_figure, polish, set_heading, styled

Estimate = tuple[float, float]


@styled
def paired_differences(
    names: Sequence[str], elbo: Sequence[Estimate | None], evidence: Sequence[Estimate | None], baseline: str
) -> Figure:
    """Differences to the baseline in ELBO and evidence, with bars of two standard errors.

    To read: right of the line is better than the baseline; a bar that crosses the line says that the data do not
    tell the two runs apart.
    """
    figure = new_figure(height=1.4 + 0.55 * len(names))
    axes = figure.subplots()
    polish(axes)
    place = np.arange(len(names))[::-1]
    for values, colour, shift, label in ((elbo, BLUE, 0.12, "ELBO"), (evidence, ORANGE, -0.12, "log p(x)")):
        rows = [(y, *value) for y, value in zip(place, values, strict=True) if value is not None]
        if rows:
            y, value, error = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
            axes.errorbar(value, y + shift, xerr=2 * error, fmt="o", ms=5, color=colour, capsize=3, label=label)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(place, [_broken(name) for name in names], fontsize=9)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("nats per datum (bars: 2 standard errors)")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower right", ncols=2, fontsize=9)
    set_heading(figure, f"Difference to {baseline}")
    return figure


@styled
def rate_distortion(names: Sequence[str], rate: Sequence[float], distortion: Sequence[float]) -> Figure:
    """KL(q_x || p) against -E log p(x|z), one point a run, with lines of equal ELBO.

    To read: the ELBO is minus the sum of both, so it rises toward the lower left, and points on one line are equally
    good bounds that spend their nats differently: left little in the code, right much.
    """
    figure = new_figure(height=4.2)
    axes = figure.subplots()
    polish(axes)
    x, y = np.asarray(rate, dtype=float), np.asarray(distortion, dtype=float)
    axes.plot(x, y, "o", color=BLUE, ms=6)
    margin = 0.12 * max(np.ptp(x), 1e-3), 0.12 * max(np.ptp(y), 1e-3)
    axes.set_xlim(x.min() - margin[0], x.max() + 4 * margin[0])
    axes.set_ylim(y.min() - margin[1], y.max() + margin[1])
    ends = np.array(axes.get_xlim())
    for total in np.linspace((x + y).min(), (x + y).max(), 4):
        axes.plot(ends, total - ends, color=GREY, lw=0.7, ls="--", zorder=0)
    for number, row in enumerate(np.argsort(x)):
        # neighbours above and below in turn, or their names would lie on each other
        above = number % 2 == 0
        place: dict[str, Any] = {"xytext": (6, 4 if above else -4), "va": "bottom" if above else "top"}
        axes.annotate(_broken(names[row]), (x[row], y[row]), textcoords="offset points", fontsize=8, **place)
    axes.set_xlabel("rate: KL(q_x || p), nats per datum")
    axes.set_ylabel("distortion: -E log p(x|z), nats")
    set_heading(figure, "Rate and distortion (dashed: equal ELBO)")
    return figure


def _broken(name: str) -> str:
    """One line for each thing that differs."""
    return name.replace("_", "\n")
