"""The learning curve."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from probvae.errors import ArgumentError
from probvae.report.drawing.arrays import Floats, data_limits, finite, padded, robust_limits
from probvae.report.drawing.style import BLUE, GREEN, INK, ORANGE, new_figure, polish, set_remark, styled

History = Sequence[Mapping[str, float | None]]
Series = tuple[Floats, Floats]


@styled
def learning_curve(history: History) -> Figure:
    """The ELBO, the KL term and the variance, epoch by epoch.

    ``history`` has one mapping an epoch with the keys ``epoch``, ``elbo``, ``kl`` and, where there are any,
    ``validation_elbo`` and ``variance``; None, NaN and missing keys are left out.

    Drawn: the ELBO in nats per datum, for the training data and, where given, the validation data (larger
    is better); below it KL(q_x || p(z)) in nats per datum, the information that q takes from a datum; below
    that the likelihood's variance c on a log axis.

    To read: the curve should be flat at the end. Training above validation by more and more is overfitting;
    a KL that falls to zero is a latent space that is not used. Outliers, mostly the first epochs, do not set
    the axis: those out of view are counted above it.
    """
    if not history:
        raise ArgumentError("history: expected one mapping an epoch, got none. Train one epoch at least.")
    variance = _positive(_series(history, "variance"))
    figure, panels = _panels(num_small=2 if variance[0].size else 1)
    _draw_elbo(panels[0], _series(history, "elbo"), _series(history, "validation_elbo"))
    _draw_kl(panels[1], _series(history, "kl"))
    if variance[0].size:
        _draw_variance(panels[2], variance)
    _set_epochs(panels[-1], _epochs(history))
    return figure


def _epochs(history: History) -> Floats:
    return np.array([_number(row.get("epoch", index)) for index, row in enumerate(history)])


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _series(history: History, key: str) -> Series:
    """Epochs and values where the value is there: a validation every fifth epoch still makes one line."""
    epochs = _epochs(history)
    values = np.array([_number(row.get(key)) for row in history])
    there = np.isfinite(epochs) & np.isfinite(values)
    return epochs[there], values[there]


def _positive(series: Series) -> Series:
    epochs, values = series
    return epochs[values > 0], values[values > 0]


def _panels(num_small: int) -> tuple[Figure, list[Axes]]:
    figure = new_figure(height=2.9 + 1.35 * num_small)
    grid = figure.add_gridspec(1 + num_small, 1, height_ratios=[2.2] + [1.0] * num_small)
    panels = [figure.add_subplot(grid[0])]
    panels += [figure.add_subplot(grid[row + 1], sharex=panels[0]) for row in range(num_small)]
    for panel in panels:
        polish(panel, num_ticks=5 if panel is panels[0] else 3, integer_x=True)
    for panel in panels[:-1]:
        panel.tick_params(labelbottom=False)
    return figure, panels


def _set_epochs(axes: Axes, epochs: Floats) -> None:
    axes.set_xlabel("epoch")
    known = np.unique(finite(epochs))
    if known.size == 1:
        axes.set_xticks(known)  # otherwise there are ticks at fractions of an epoch
        axes.set_xlim(known[0] - 0.5, known[0] + 0.5)
    else:
        axes.set_xlim(*padded(*data_limits(known), share=0.02, least=0.0))


def _draw_line(axes: Axes, series: Series, colour: str, name: str) -> None:
    marker = "o" if series[0].size <= 15 else ""  # a line through one point is invisible
    axes.plot(*series, color=colour, label=name, marker=marker, markersize=4)


def _draw_elbo(axes: Axes, training: Series, validation: Series) -> None:
    axes.set_title("ELBO (nats per datum)")
    lines = [(training, BLUE, "training"), (validation, ORANGE, "validation")]
    lines = [line for line in lines if line[0][0].size]
    if not lines:
        set_remark(axes, "no finite values")
        axes.set_yticks([])
        return
    for series, colour, name in lines:
        _draw_line(axes, series, colour, name)
    _set_robust_limits(axes, [series for series, _, _ in lines])
    _label_ends(axes, [(float(series[1][-1]), colour, name) for series, colour, name in lines])


def _draw_kl(axes: Axes, series: Series) -> None:
    axes.set_title("KL(q || p) (nats per datum)")
    if not series[0].size:
        set_remark(axes, "no finite values")
        axes.set_yticks([])
        return
    _draw_line(axes, series, GREEN, "KL")
    _set_robust_limits(axes, [series])


def _set_robust_limits(axes: Axes, lines: list[Series]) -> None:
    limits = [robust_limits(values) for _, values in lines]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    axes.set_ylim(low, high)
    hidden = {epoch for epochs, values in lines for epoch in epochs[(values < low) | (values > high)]}
    if hidden:
        set_remark(axes, f"{len(hidden)} epoch{'s' * (len(hidden) > 1)} out of view")


def _draw_variance(axes: Axes, series: Series) -> None:
    axes.set_title("variance c of p(x|z) (log axis)")
    axes.set_yscale("log")
    _polish_log(axes, series[1])
    _draw_line(axes, series, INK, "variance")


def _polish_log(axes: Axes, values: Floats) -> None:
    """Limits and ticks for a log axis: two ticks at least, however little the values change."""
    low, high = padded(*_log_range(values), least=0.0)
    axes.set_ylim(10**low, 10**high)
    # within two decades 1, 2, 5; beyond, powers of ten
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high - low < 1.5 else (1.0,), numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def _log_range(values: Floats) -> tuple[float, float]:
    low, high = float(np.log10(values.min())), float(np.log10(values.max()))
    middle, half = (low + high) / 2, max((high - low) / 2, np.log10(6) / 2)
    return middle - half, middle + half


def _label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """The name of each line at its right end, moved apart where two would overlap."""
    low, high = axes.get_ylim()
    heights = _apart([min(max((value - low) / (high - low), 0.0), 1.0) for value, _, _ in ends], least=0.09)
    for height, (_, colour, name) in zip(heights, ends, strict=True):
        axes.annotate(name, (1.02, height), xycoords="axes fraction", color=colour, va="center")


def _apart(heights: list[float], least: float) -> list[float]:
    if len(heights) < 2 or abs(heights[0] - heights[1]) >= least:
        return heights
    middle = min(max(sum(heights) / 2, least / 2), 1 - least / 2)
    half = least / 2 if heights[0] >= heights[1] else -least / 2
    return [middle + half, middle - half]
