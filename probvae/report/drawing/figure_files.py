"""A figure on disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from probvae.errors import ArgumentError, RunError
from probvae.foundation.text import printable
from probvae.report.drawing.style import look
from probvae.storage.files import write_atomic

DPI = 150


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``folder/name.png`` (150 dots per inch) and ``folder/name.svg``; return the two paths.

    Each file is replaced as a whole or not at all. The SVG has no date and no random names: the same
    figure gives the same bytes. The folder is made when it is not there.

    Raises :class:`~probvae.errors.ArgumentError` when ``name`` is not a plain file name and
    :class:`~probvae.errors.RunError` when a file cannot be written.
    """
    if not name or Path(name).name != name:
        raise ArgumentError(f"name: expected a file name without folder, got {name!r}. Use folder for that.")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror or error}).") from error
    # not with_suffix: a name may hold a dot, as in "c=0.1"
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    _clean_texts(figure)
    with look(), _resolution(figure):
        # savefig would draw each of them twice, to find out what is fixed already
        write_atomic(png, lambda path: FigureCanvasAgg(figure).print_png(path))
        write_atomic(svg, lambda path: FigureCanvasSVG(figure).print_svg(str(path), metadata={"Date": None}))
    return [png, svg]


def _clean_texts(figure: Figure) -> None:
    """Names of columns and classes may hold what is not allowed in an SVG."""
    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))


@contextmanager
def _resolution(figure: Figure) -> Iterator[None]:
    dpi, canvas = figure.dpi, figure.canvas
    figure.set_dpi(DPI)
    try:
        yield
    finally:
        figure.set_dpi(dpi)
        figure.set_canvas(canvas)
