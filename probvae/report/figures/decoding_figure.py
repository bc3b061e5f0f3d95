"""The latent plane seen through the decoder."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from probvae.errors import ArgumentError, ShapeError
from probvae.report.drawing.arrays import as_array, data_limits
from probvae.report.drawing.style import WIDTH, new_figure, polish, set_heading, styled
from probvae.report.drawing.tiles import as_images, offsets, show, tile


@styled
def decoded_grid(images: ArrayLike, image_shape: tuple[int, ...], extent: tuple[float, float]) -> Figure:
    """The decoder's mean picture f(z) on a square grid of the latent plane, ``extent`` in the units of z.

    ``images`` is (n, n, D): ``images[i, j]`` is f at z = (grid[j], grid[i]) with
    ``grid = linspace(low, high, n)`` and ``extent = (low, high)``. So z_1 grows to the right and z_2
    upwards, as in the latent plane.

    Drawn: one picture of n x n tiles without gaps; a tile's centre is its z.

    To read: neighbours should change little by little. A jump is a border between two clusters; wide areas
    of the same picture are latent space that is not used.
    """
    grid = as_array(images, "images", 3)
    num_rows, num_columns, num_pixels = grid.shape
    if num_rows != num_columns:
        raise ShapeError(f"images: expected shape (n, n, D), got {grid.shape}. Decode a square grid.")
    low, high = float(extent[0]), float(extent[1])
    if not (np.isfinite([low, high]).all() and low < high):
        raise ArgumentError(f"extent: expected low < high, got ({low}, {high}). Swap them or widen the grid.")

    limits = data_limits(grid)
    # the first row of a picture is its top, where z_2 is largest
    tiles = as_images(grid[::-1].reshape(-1, num_pixels), image_shape, limits)
    height, width = tiles.shape[1:3]
    canvas = tile(tiles, offsets(num_rows, height, 0), offsets(num_rows, width, 0))
    # the outermost tiles reach half a step beyond their centres
    half = (high - low) / (num_rows - 1) / 2 if num_rows > 1 else 0.0
    side = (low - half, high + half)

    figure = new_figure(height=0.9 + (WIDTH - 0.7) * height / width)
    axes = figure.add_subplot()
    polish(axes)
    show(axes, canvas, limits, extent=(*side, *side))
    axes.set_aspect(height / width)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("$z_1$")
    axes.set_ylabel("$z_2$")
    set_heading(figure, "Decoded latent plane (axes in units of z)")
    return figure
