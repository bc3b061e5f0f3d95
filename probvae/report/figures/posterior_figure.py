"""The guide beside the exact posterior, datum by datum: contours for two latents, curves for one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch

from probvae.report.drawing.arrays import Floats
from probvae.report.drawing.style import INK, ORANGE, new_figure, polish, set_heading, styled

_COLUMNS = 3
_EXACT = "#A9CBE2"
# the regions that hold 50, 90 and 99 % of the posterior's mass
_MASSES = (0.5, 0.9, 0.99)
# squared radius of the ellipse that holds 90 % of a normal's mass in the plane: -2 log 0.1
_RADIUS = float(np.sqrt(-2 * np.log(0.1)))


@dataclass(frozen=True)
class NormalInPlane:
    """A normal distribution over the latent plane: ``mean`` (2,) and ``covariance`` (2, 2), in the units of z."""

    mean: Floats
    covariance: Floats


@dataclass(frozen=True)
class DensityInPlane:
    """Any distribution over the latent plane: ``log_density`` (n_2, n_1) over ``first`` (n_1,), ``second`` (n_2,)."""

    first: Floats
    second: Floats
    log_density: Floats


@dataclass(frozen=True)
class PosteriorPanel:
    """One datum: its exact ``log_density`` (n_2, n_1) over ``first`` (n_1,) and ``second`` (n_2,), and the guides."""

    title: str
    first: Floats
    second: Floats
    log_density: Floats
    guide: NormalInPlane | DensityInPlane
    refined: NormalInPlane | DensityInPlane | None


@styled
def posterior_contours(panels: Sequence[PosteriorPanel]) -> Figure:
    """The exact posterior of a few data, with the guide's normal and the best of its family on top.

    Filled: the smallest regions that hold 50, 90 and 99 % of p(z|x). Lines: the smallest region that holds 90 % of
    the guide's q (for a normal an ellipse), and of the best member of its family.

    To read: where the dashed line lies on the middle region's edge, the family suffices; where the solid line lies
    elsewhere, the encoder is at fault.
    """
    rows = -(-len(panels) // _COLUMNS)
    figure = new_figure(height=0.9 + 1.95 * rows)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel)
    _explain(figure, refined=any(panel.refined is not None for panel in panels))
    set_heading(figure, "Exact posteriors and the guide (units of z)")
    return figure


def _draw_panel(axes: Axes, panel: PosteriorPanel) -> None:
    polish(axes, num_ticks=3)
    levels = [*_levels(panel.log_density), float(panel.log_density.max()) + 1e-9]
    axes.contourf(panel.first, panel.second, panel.log_density, levels=levels, colors=["#DCE9F2", _EXACT, "#6FA8CF"])
    _draw_region(axes, panel.guide, ORANGE, "-")
    if panel.refined is not None:
        _draw_region(axes, panel.refined, INK, "--")
    axes.set_title(panel.title, fontsize=9)
    axes.autoscale_view()


def _levels(log_density: Floats) -> list[float]:
    """The densities that bound the regions of 50, 90 and 99 % of the mass, rising."""
    values = np.sort(log_density.ravel())[::-1]
    mass = np.exp(values - values[0]).cumsum()
    found = [float(values[np.searchsorted(mass, share * mass[-1])]) for share in sorted(_MASSES, reverse=True)]
    # a posterior between two nodes of the grid has regions of one node: keep the levels apart
    return [level + 1e-9 * number for number, level in enumerate(found)]


def _draw_region(axes: Axes, q: NormalInPlane | DensityInPlane, colour: str, line: str) -> None:
    if isinstance(q, NormalInPlane):
        _draw_ellipse(axes, q, colour, line)
        return
    level = _levels(q.log_density)[1]
    axes.contour(q.first, q.second, q.log_density, levels=[level], colors=[colour], linestyles=[line], linewidths=1.6)


def _draw_ellipse(axes: Axes, normal: NormalInPlane, colour: str, line: str) -> None:
    variances, directions = np.linalg.eigh(normal.covariance)
    width, height = 2 * _RADIUS * np.sqrt(variances)
    angle = float(np.degrees(np.arctan2(directions[1, 0], directions[0, 0])))
    mean = (float(normal.mean[0]), float(normal.mean[1]))
    axes.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, edgecolor=colour, linestyle=line, lw=1.6))
    axes.plot(*mean, marker="+", color=colour, markersize=5)


def _explain(figure: Figure, refined: bool) -> None:
    handles = [
        Line2D([], [], color="#6FA8CF", lw=7, label="exact, 50, 90, 99 %"),
        Line2D([], [], color=ORANGE, label="guide, 90 %"),
    ]
    if refined:
        handles.append(Line2D([], [], color=INK, linestyle="--", label="best of its family"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=9)


@dataclass(frozen=True)
class CurvePanel:
    """One datum: its ``exact`` density (n,) over ``axis`` (n,), the ``guide``'s, and that of the best of its family."""

    title: str
    axis: Floats
    exact: Floats
    guide: Floats
    refined: Floats | None


@styled
def posterior_curves(panels: Sequence[CurvePanel]) -> Figure:
    """The exact posterior density of a few data, filled, with the guide's on top, and the best of its family's.

    To read: a solid line beside the filled hill is the encoder's fault; a dashed one that leaves a hill out is the
    family's.
    """
    rows = -(-len(panels) // _COLUMNS)
    figure = new_figure(height=1.2 + 1.6 * rows)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_curves(axes, panel)
    handles = [Patch(color=_EXACT, label="exact"), Line2D([], [], color=ORANGE, label="guide")]
    if any(panel.refined is not None for panel in panels):
        handles.append(Line2D([], [], color=INK, ls="--", label="best of its family"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=9)
    set_heading(figure, "Exact posteriors and the guide (units of z)")
    return figure


def _draw_curves(axes: Axes, panel: CurvePanel) -> None:
    polish(axes, num_ticks=3)
    axes.fill_between(panel.axis, panel.exact, color=_EXACT, lw=0)
    axes.plot(panel.axis, panel.guide, color=ORANGE, lw=1.6)
    if panel.refined is not None:
        axes.plot(panel.axis, panel.refined, color=INK, ls="--", lw=1.4)
    axes.set_xlim(panel.axis[0], panel.axis[-1])
    # a guide that is far too narrow would press the posterior flat: it is cut off
    curves = [values for values in (panel.exact, panel.guide, panel.refined) if values is not None]
    tallest = max(float(values.max()) for values in curves)
    axes.set_ylim(0, 1.05 * min(tallest, 2.0 * float(panel.exact.max())))
    axes.set_yticks([])
    axes.set_title(panel.title, fontsize=9)
