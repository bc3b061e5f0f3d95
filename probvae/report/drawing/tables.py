"""Small multiples: one panel a feature, three a row."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probvae.report.drawing.style import WIDTH, new_figure, polish, shorten

MAX_FEATURES = 12


def feature_panels(titles: list[str]) -> tuple[Figure, list[Axes]]:
    """A panel for each of the first twelve features, with its name above it."""
    titles = titles[:MAX_FEATURES]
    columns = min(len(titles), 2 if len(titles) in (2, 4) else 3)
    num_rows = -(-len(titles) // columns)
    figure = new_figure(height=1.0 + num_rows * (WIDTH - 0.4) / max(columns, 2))
    panels = [figure.add_subplot(num_rows, columns, index + 1) for index in range(len(titles))]
    for panel, title in zip(panels, titles, strict=True):
        polish(panel, num_ticks=4)
        panel.set_title(title if title.startswith("$") else shorten(title, 16), fontsize=10)
    return figure, panels


def count_features(num_features: int) -> str:
    """Which features are drawn, when not all are."""
    return f"first {MAX_FEATURES} of {num_features} features" if num_features > MAX_FEATURES else ""
