"""The look that all figures share: colours, sizes, axes. Nothing here outlives the call that uses it."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

# Okabe and Ito's colours: told apart by colour-blind readers, and in grey.
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
INK = "#222222"
GREY = "#636363"
SPINE = "#9A9A9A"
PALE = "#CFCFCF"

# Petroff's ten (arXiv:2107.02270), tested with simulated colour blindness; the order is his.
CLASS_COLOURS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
SEQUENTIAL = "viridis"

# Inches. On a phone the figure is about 360 pixels wide: 11 points then stay 10 pixels high.
WIDTH = 5.6
SMALL = 9.0

LOOK: dict[str, Any] = {
    "font.size": 11,
    "text.color": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": SPINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.titlesize": 12,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "probvae",
}

P = ParamSpec("P")


def look() -> Any:
    """A context with the package's look on top of matplotlib's defaults, whatever style the user has set."""
    return style.context(["default", LOOK])


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Let ``draw`` run in :func:`look`, and fix the layout of what it drew."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with look():
            figure = draw(*args, **kwargs)
            # Laid out afresh at each drawing, a figure would move by a hair and its SVG would change.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            return figure

    return drawn


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty white figure (inches), drawn by Agg and known to no pyplot."""
    layout = ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07)
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def set_heading(figure: Figure, title: str) -> None:
    """The figure's title, flush left."""
    figure.suptitle(title, x=0.015, ha="left")


def set_note(axes: Axes, note: str) -> None:
    """A small grey line above the axes: what a reader needs to read the picture."""
    axes.set_title(note, fontsize=SMALL, color=GREY)


def set_remark(axes: Axes, remark: str) -> None:
    """The same at the right: what the picture leaves out."""
    axes.set_title(remark, fontsize=SMALL, color=GREY, loc="right")


def polish(axes: Axes, *, num_ticks: int = 6, integer_x: bool = False) -> None:
    """Plain tick labels, few of them.

    Matplotlib makes ticks when it draws, with the settings of that moment, so their looks are set here.
    """
    axes.tick_params(which="both", color=SPINE, labelcolor=GREY, labelsize=9.5, width=0.8, length=3)
    for axis in (axes.xaxis, axes.yaxis):
        # An offset ("1e6", "+1.2e3") would stand where the title stands.
        axis.set_major_formatter(StrMethodFormatter("{x:.8g}"))
        axis.set_major_locator(MaxNLocator(num_ticks, steps=[1, 2, 2.5, 5, 10]))
    if integer_x:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))


def hide_ticks(axes: Axes) -> None:
    """No ticks and no frame, for pictures."""
    axes.tick_params(length=0, labelcolor=GREY, labelsize=9.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def count_data(number: int) -> str:
    """``1 datum``, ``2 data``."""
    return f"{number} datum" if number == 1 else f"{number} data"


def shorten(text: str, length: int = 20) -> str:
    """``text``, cut to ``length`` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
