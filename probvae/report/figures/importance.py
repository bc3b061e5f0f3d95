"""How well draws of the guide can be weighted into draws of the posterior."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from probvae.report.figures._arrays import as_array
from probvae.report.figures.style import (
    BLUE,
    GREY,
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


@styled
def pareto_k(values: ArrayLike, threshold: float) -> Figure:
    """The Pareto k-hat of each datum, (N,), from the smallest to the largest.

    A value of minus infinity (all weights are the same) is drawn at the lower edge, one that is too large to be
    drawn at the upper edge; NaN is left out, and counted.

    To read: below the dashed line the weighted draws can be relied on; above the dotted line, at 1, the weights have
    no mean, and nothing estimated from them means anything.
    """
    k = np.sort(as_array(values, "pareto_k", 1))
    known = k[~np.isnan(k)]
    figure = new_figure(height=3.2)
    axes = figure.subplots()
    polish(axes, num_ticks=5)
    shown = known[np.isfinite(known)]
    low, high = _limits(shown, threshold)
    share = 100 * (np.arange(len(known)) + 0.5) / max(len(known), 1)
    good = known <= threshold
    for rows, colour, marker in ((good, BLUE, "o"), (~good, ORANGE, "^")):
        axes.scatter(share[rows], known[rows].clip(low, high), s=14, color=colour, marker=marker, lw=0)
    for level, line, name in ((threshold, "--", f"threshold {threshold:.2g}"), (1.0, ":", "1")):
        axes.axhline(level, color=INK, lw=1, ls=line)
        axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=SMALL)
    axes.set_xlim(0, 100)
    axes.set_ylim(low - 0.05, high + 0.1)
    axes.set_xlabel("share of the data with a smaller one, %")
    axes.set_ylabel("k̂")
    set_heading(figure, f"Pareto k̂ of {count_data(len(k))}")
    set_note(axes, f"below the threshold: {good.sum()} of {len(k)}")
    if len(known) < len(k):
        set_remark(axes, f"{len(k) - len(known)} unknown")
    return figure


def _limits(shown: np.ndarray, threshold: float) -> tuple[float, float]:
    low = min(0.0, float(shown.min(initial=0.0)))
    return max(low, -1.0), max(1.05, min(float(shown.max(initial=threshold)), 3.0))
