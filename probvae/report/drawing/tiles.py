"""Small multiples: many images as one array that a single ``imshow`` draws, and one panel for each feature."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from probvae.errors import ShapeError
from probvae.report.drawing.arrays import Floats
from probvae.report.drawing.style import WIDTH, new_figure, polish, shorten

Offsets = NDArray[np.int64]
MAX_FEATURES = 12


def is_table(image_shape: tuple[int, ...] | None) -> bool:
    """True where rows are lists of features, not images."""
    return image_shape is None or len(image_shape) < 2


def as_images(rows: Floats, image_shape: tuple[int, ...], limits: tuple[float, float]) -> Floats:
    """Rows (N, D) as grey pictures (N, H, W) or colour ones (N, H, W, 3).

    ``image_shape`` is (H, W), (1, H, W), (H, W, 1), (3, H, W) or (H, W, 3). Colours are brought from
    ``limits`` to [0, 1] unless they lie there already; missing ones are white.
    """
    shape = tuple(image_shape)
    if rows.shape[1] != int(np.prod(shape)):
        raise ShapeError(f"image_shape: expected sizes whose product is {rows.shape[1]}, got {shape}. Mend it.")
    images = rows.reshape(len(rows), *shape)
    if len(shape) == 2:
        return images
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        return images[:, 0] if shape[0] == 1 else images[..., 0]
    if len(shape) == 3 and 3 in (shape[0], shape[2]):
        return _as_colours(np.moveaxis(images, 1, -1) if shape[0] == 3 else images, limits)
    raise ShapeError(f"image_shape: expected (H, W) with 1 or 3 channels, got {shape}. Pass image_shape=None.")


def _as_colours(images: Floats, limits: tuple[float, float]) -> Floats:
    low, high = limits
    if low < 0 or high > 1:
        images = (images - low) / (high - low)
    return np.where(np.isfinite(images), images, 1.0).clip(0.0, 1.0)


def offsets(count: int, size: int, gap: int, *, every: int = 1, extra: int = 0) -> Offsets:
    """The first pixels of ``count`` tiles of ``size`` pixels: ``gap`` apart, ``extra`` more after each ``every``."""
    index = np.arange(count)
    return index * (size + gap) + (index // every) * extra


def gap_for(width: int) -> int:
    """Pixels between two tiles: about a twentieth of a tile."""
    return max(1, round(width / 20))


def tile(images: Floats, tops: Offsets, lefts: Offsets) -> Floats:
    """One picture with ``images`` at ``tops`` x ``lefts``, row by row; the rest is NaN, white in colour."""
    height, width = images.shape[1:3]
    canvas_shape = (int(tops[-1]) + height, int(lefts[-1]) + width, *images.shape[3:])
    canvas = np.full(canvas_shape, np.nan if images.ndim == 3 else 1.0)
    for index, image in enumerate(images):
        top, left = tops[index // len(lefts)], lefts[index % len(lefts)]
        canvas[top : top + height, left : left + width] = image
    return canvas


def show(
    axes: Axes,
    canvas: Floats,
    limits: tuple[float, float],
    extent: tuple[float, float, float, float] | None = None,
) -> AxesImage:
    """Draw the picture in grey between ``limits`` or in its colours; NaN is white."""
    low, high = limits
    image = axes.imshow(canvas, cmap="gray", vmin=low, vmax=high, extent=extent)
    image.set_cmap(image.get_cmap().with_extremes(bad="white"))
    return image


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
