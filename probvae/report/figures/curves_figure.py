"""What the guide makes of the posterior, datum by datum, for one latent."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from probvae.report.drawing.arrays import Floats
from probvae.report.drawing.style import INK, ORANGE, new_figure, polish, set_heading, styled

_COLUMNS = 3
_EXACT = "#A9CBE2"


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
        _draw_panel(axes, panel)
    handles = [Patch(color=_EXACT, label="exact"), Line2D([], [], color=ORANGE, label="guide")]
    if any(panel.refined is not None for panel in panels):
        handles.append(Line2D([], [], color=INK, ls="--", label="best of its family"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=9)
    set_heading(figure, "Exact posteriors and the guide (units of z)")
    return figure


def _draw_panel(axes: Axes, panel: CurvePanel) -> None:
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
