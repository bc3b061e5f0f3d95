"""How well draws of the guide can be weighted into draws of the posterior."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from probvae.report.drawing.arrays import Floats, as_array
from probvae.report.drawing.style import (
    BLUE,
    INK,
    ORANGE,
    SMALL,
    count_data,
    new_figure,
    polish,
    set_heading,
    set_note,
    set_remark,
    styled,
)

# Values beyond these limits are drawn at the edge.
_LOWEST, _HIGHEST = -1.0, 3.0


@styled
def pareto_k(values: ArrayLike, threshold: float) -> Figure:
    """The Pareto k-hat of each datum, (N,), from the smallest to the largest.

    A value of minus infinity (all weights are the same) is drawn at the lower edge, one that is too large to be
    drawn at the upper edge; NaN is left out, and counted.

    To read: below the dashed line the weighted draws can be relied on; above the dotted line, at 1, the weights have
    no mean, and nothing estimated from them means anything.
    """
    every = as_array(values, "pareto_k", 1)
    k = np.sort(every[~np.isnan(every)])
    figure = new_figure(height=3.2)
    axes = figure.subplots()
    polish(axes, num_ticks=5)
    low, high = _limits(k)
    share = 100 * (np.arange(len(k)) + 0.5) / max(len(k), 1)
    good = k <= threshold
    for rows, colour, marker in ((good, BLUE, "o"), (~good, ORANGE, "^")):
        axes.scatter(share[rows], k[rows].clip(low, high), s=16, color=colour, marker=marker, lw=0)
    for level, line, name in ((threshold, "--", f"threshold {threshold:.2g}"), (1.0, ":", "no mean above 1")):
        axes.axhline(level, color=INK, lw=1, ls=line, zorder=0)
        above: dict[str, Any] = {"xytext": (0.0, 2.0), "textcoords": "offset points"}
        axes.annotate(name, (0.01, level), fontsize=SMALL, xycoords=("axes fraction", "data"), **above)
    axes.set_xlim(0, 100)
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_xlabel("share of the data with a smaller one, %")
    axes.set_ylabel("k̂")
    set_heading(figure, f"Pareto k̂ of {count_data(len(every))}")
    set_note(axes, f"at most the threshold: {good.sum()} of {len(every)}")
    if len(k) < len(every):
        set_remark(axes, f"{len(every) - len(k)} unknown")
    return figure


def _limits(k: Floats) -> tuple[float, float]:
    shown = k.clip(_LOWEST, _HIGHEST)
    return min(0.0, float(shown.min(initial=0.0))), max(1.2, float(shown.max(initial=0.0)))


@styled
def effective_draws(shares: ArrayLike, num_samples: int) -> Figure:
    """The effective share of ``num_samples`` draws, (N,) in [0, 1], as a histogram over the data.

    To read: at 100 % the weights are constant, as they are for an exact guide; at the left edge one draw carries all
    the weight.
    """
    values = as_array(shares, "shares", 1)
    known = 100 * values[np.isfinite(values)]
    figure = new_figure(height=2.6)
    axes = figure.subplots()
    polish(axes, num_ticks=5)
    axes.hist(known, bins=25, range=(0, 100), color=BLUE)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"effective draws, % of {num_samples}")
    axes.set_ylabel("number of data")
    set_heading(figure, f"Effective sample size of {count_data(len(values))}")
    if len(known):
        set_note(axes, f"median {np.median(known):.0f} %")
    return figure
