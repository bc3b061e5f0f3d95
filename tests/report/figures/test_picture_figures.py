"""Reconstructions, samples and the decoded plane: every tile and every point is where it belongs."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from probvae.errors import ArgumentError, ShapeError
from probvae.report.figures import decoded_grid, reconstructions, samples


def _rows(num_rows: int, num_columns: int) -> np.ndarray:
    return np.random.default_rng(5).random((num_rows, num_columns))


def _canvas(figure: Figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def _find(canvas: np.ndarray, tile: np.ndarray) -> tuple[int, int]:
    """Top left corner of the only place where ``tile`` stands in ``canvas``."""
    height, width = tile.shape[:2]
    places = [
        (top, left)
        for top in range(canvas.shape[0] - height + 1)
        for left in range(canvas.shape[1] - width + 1)
        if np.array_equal(canvas[top : top + height, left : left + width], tile)
    ]
    assert len(places) == 1
    return places[0]


def test_each_datum_stands_above_its_reconstruction() -> None:
    x, model = _rows(11, 20), _rows(22, 20)[11:]
    figure = reconstructions(x, model, (4, 5))
    canvas = _canvas(figure)
    corners = [(_find(canvas, a.reshape(4, 5)), _find(canvas, b.reshape(4, 5))) for a, b in zip(x, model, strict=True)]
    for above, below in corners:
        assert below == (above[0] + 5, above[1])  # four pixels and a gap of one
    lefts = [above[1] for above, _ in corners]
    assert lefts == [6 * (index % 8) for index in range(11)]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["data", "model", "data", "model"]
    centres = figure.axes[0].get_yticks()
    assert centres.tolist() == [row + 1.5 for pair in (corners[0], corners[8]) for row, _ in pair]


def test_only_the_first_images_are_drawn_and_it_says_so() -> None:
    figure = reconstructions(_rows(100, 4), _rows(100, 4), (2, 2))
    assert figure.get_suptitle() == "Reconstructions, first 24 of 100 data"


def test_reconstructions_share_the_grey_scale_of_the_data() -> None:
    x = _rows(3, 4)
    image = reconstructions(x, x * 10, (2, 2)).axes[0].images[0]
    assert image.get_clim() == (x.min(), x.max())


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 4, 1), (3, 4)])
def test_grey_pictures_with_and_without_a_channel(shape: tuple[int, ...]) -> None:
    x = _rows(2, 12)
    assert _find(_canvas(samples(x, shape)), x[1].reshape(3, 4)) == (0, 5)


def test_colour_channels_first_and_last() -> None:
    x = _rows(1, 3 * 4 * 5)
    first = _canvas(samples(x, (3, 4, 5)))
    np.testing.assert_allclose(first, np.moveaxis(x.reshape(3, 4, 5), 0, -1), atol=1 / 255)
    np.testing.assert_allclose(_canvas(samples(x, (4, 5, 3))), x.reshape(4, 5, 3), atol=1 / 255)
    bytes_ = _canvas(samples(x * 255, (4, 5, 3), data=np.array([[0.0] * 59 + [255.0]])))
    np.testing.assert_allclose(bytes_, x.reshape(4, 5, 3), atol=1 / 255)


def test_samples_fill_a_grid_row_by_row() -> None:
    x = _rows(10, 6)
    canvas = _canvas(samples(x, (2, 3)))
    assert [_find(canvas, row.reshape(2, 3)) for row in x] == [(3 * (i // 4), 4 * (i % 4)) for i in range(10)]
    assert np.isnan(canvas[2]).all()
    assert samples(_rows(100, 6), (2, 3)).get_suptitle() == "E[x|z] at 64 draws of z from the prior"
    modes = samples(_rows(100, 6), (2, 3), point_name="mode of p(x|z)")
    assert modes.get_suptitle() == "mode of p(x|z) at 64 draws of z from the prior"


def test_a_table_has_a_panel_a_feature() -> None:
    x, model = _rows(30, 5), _rows(60, 5)[30:]
    figure = reconstructions(x, model, None, list("abcde"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == list("abcde")
    for index, axes in enumerate(figure.axes):
        np.testing.assert_array_equal(axes.collections[0].get_offsets(), np.stack([x[:, index], model[:, index]], 1))
        np.testing.assert_array_equal(*axes.lines[0].get_data())
        assert axes.get_xlim() == axes.get_ylim()


def test_no_more_than_twelve_features() -> None:
    for figure in (reconstructions(_rows(9, 13), _rows(9, 13), None), samples(_rows(9, 13), None)):
        assert len(figure.axes) == 12
        assert "first 12 of 13 features" in figure.get_suptitle()


def test_histograms_have_area_one_and_common_bins() -> None:
    x, data = _rows(400, 3), 2 * _rows(50, 3)
    figure = samples(x, None, data=data, feature_names=["a", "b", "c"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["data", "samples"]
    for index, axes in enumerate(figure.axes):
        of_data, of_samples = [patch.get_data() for patch in axes.patches]
        np.testing.assert_array_equal(of_data.edges, of_samples.edges)
        widths = np.diff(of_data.edges)
        assert of_data.values @ widths == pytest.approx(1)
        inside = np.sum((x[:, index] >= of_data.edges[0]) & (x[:, index] <= of_data.edges[-1]))
        assert of_samples.values @ widths == pytest.approx(inside / 400)
        assert of_data.edges[0] <= data[:, index].min()
        assert of_data.edges[-1] >= data[:, index].max()


def test_one_far_sample_does_not_squash_the_histogram() -> None:
    x, data = _rows(400, 1), _rows(50, 1)
    x[7] = 1e6
    axes = samples(x, None, data=data).axes[0]
    assert axes.patches[0].get_data().edges[-1] < 2


def test_two_features_are_a_scatter_of_both() -> None:
    x, data = _rows(40, 2), _rows(20, 2)
    figure = samples(x, None, data=data)
    below, above = figure.axes[0].collections
    np.testing.assert_array_equal(below.get_offsets(), data)
    np.testing.assert_array_equal(above.get_offsets(), x)
    assert (below.get_label(), above.get_label()) == ("data", "samples")


def test_decoded_tiles_stand_at_their_z() -> None:
    images = _rows(9, 20).reshape(3, 3, 20)
    figure = decoded_grid(images, (4, 5), (-2, 2))
    axes, canvas = figure.axes[0], _canvas(figure)
    left, right, bottom, top = axes.images[0].get_extent()
    assert (left, right, bottom, top) == (-3, 3, -3, 3)  # half a step beyond the grid
    grid = np.linspace(-2, 2, 3)
    for row in range(3):
        for column in range(3):
            y, x = _find(canvas, images[row, column].reshape(4, 5))
            assert left + (x + 2.5) / 15 * (right - left) == pytest.approx(grid[column])
            assert top - (y + 2.0) / 12 * (top - bottom) == pytest.approx(grid[row])
    assert axes.get_aspect() == pytest.approx(4 / 5)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_1$", "$z_2$")


@pytest.mark.parametrize("value", [0.0, 3.0, float("nan")])
def test_constant_and_missing_values_can_be_drawn(value: float) -> None:
    for num_columns in (1, 2, 3):  # a histogram, a scatter, a panel of each
        x = np.full((3, num_columns), value)
        reconstructions(x, x, None).canvas.draw()
        samples(x, None).canvas.draw()
        samples(x, None, data=x + 1).canvas.draw()
        samples(x + 1, None, data=_rows(5, num_columns)).canvas.draw()
    for shape in [(2, 2), (3, 2, 2)]:
        x = np.full((3, int(np.prod(shape))), value)
        reconstructions(x, x, shape).canvas.draw()
        samples(x, shape).canvas.draw()
        decoded_grid(x[:1][None], shape, (-1, 1)).canvas.draw()


def test_wrong_shapes_are_errors() -> None:
    x = _rows(3, 6)
    with pytest.raises(ShapeError, match=r"reconstruction: expected shape \(3, 6\), got \(3, 5\)"):
        reconstructions(x, x[:, :5], None)
    with pytest.raises(ShapeError, match="image_shape: expected sizes whose product is 6"):
        reconstructions(x, x, (2, 2))
    with pytest.raises(ShapeError, match="1 or 3 channels"):
        samples(_rows(3, 8), (2, 2, 2))
    with pytest.raises(ShapeError, match="feature_names: expected 6 names, got 1"):
        samples(x, None, feature_names=["a"])
    with pytest.raises(ShapeError, match="data: expected 6 columns"):
        samples(x, None, data=x[:, :2])
    with pytest.raises(ShapeError, match=r"images: expected shape \(n, n, D\)"):
        decoded_grid(_rows(6, 4).reshape(2, 3, 4), (2, 2), (-1, 1))
    with pytest.raises(ArgumentError, match="extent: expected low < high"):
        decoded_grid(_rows(4, 4).reshape(2, 2, 4), (2, 2), (1, -1))
