"""The latent plane shows every datum at its mean, in its class's colour."""

import numpy as np
import pytest
from matplotlib.collections import EllipseCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from probvae.errors import ArgumentError, ShapeError
from probvae.report.drawing.style import CLASS_COLOURS
from probvae.report.figures import latent_plane


def _means(num_data: int = 60, dim: int = 2) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(num_data, dim))


def _points(figure: Figure) -> np.ndarray:
    scatters = [item for item in figure.axes[0].collections if isinstance(item, PathCollection)]
    return np.concatenate([np.asarray(item.get_offsets()) for item in scatters])


def _sorted(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(points.T)]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_points_are_the_means_with_equal_aspect() -> None:
    means = _means()
    figure = latent_plane(means)
    axes = figure.axes[0]
    np.testing.assert_array_equal(_sorted(_points(figure)), _sorted(means))
    assert axes.get_aspect() == 1
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_{1}$", "$z_{2}$")
    assert not figure.legends
    assert "60 data (units of z)" in figure.get_suptitle()


def test_the_prior_is_two_discs() -> None:
    discs = [patch for patch in latent_plane(_means()).axes[0].patches if isinstance(patch, Circle)]
    assert sorted(disc.radius for disc in discs) == [1, 2]
    assert all(disc.center == (0, 0) for disc in discs)


def test_each_datum_has_the_colour_of_its_class() -> None:
    means, labels = _means(30), np.repeat(["b", "a", "c"], 10)
    figure = latent_plane(means, labels)
    scatter = next(item for item in figure.axes[0].collections if isinstance(item, PathCollection))
    colours = {
        tuple(point): tuple(colour[:3])
        for point, colour in zip(np.asarray(scatter.get_offsets()), scatter.get_facecolors(), strict=True)
    }
    for point, label in zip(means, labels, strict=True):
        assert colours[tuple(point)] == to_rgba(CLASS_COLOURS["abc".index(label)])[:3]
    assert _legend(figure) == ["a", "b", "c"]


def test_twenty_classes_have_twenty_different_marks() -> None:
    figure = latent_plane(_means(40), np.arange(40) % 20)
    assert _legend(figure) == [str(code) for code in range(20)]
    handles = figure.legends[0].legend_handles
    assert len({(handle.get_color(), handle.get_marker()) for handle in handles}) == 20


@pytest.mark.parametrize("labels", [np.arange(60), np.linspace(0, 1, 60), [f"word {i}" for i in range(60)]])
def test_more_classes_get_a_colour_bar(labels: np.ndarray | list[str]) -> None:
    figure = latent_plane(_means(), labels)
    assert not figure.legends
    assert len(figure.axes) == 2
    figure.canvas.draw()


def test_the_colour_bar_has_the_labels_own_values() -> None:
    means, labels = _means(), np.linspace(5, 7, 60)
    scatter = next(i for i in latent_plane(means, labels).axes[0].collections if isinstance(i, PathCollection))
    drawn = dict(zip(map(tuple, np.asarray(scatter.get_offsets())), scatter.get_array(), strict=True))
    assert [drawn[tuple(point)] for point in means] == labels.tolist()
    assert scatter.get_clim() == (5, 7)


def test_missing_labels_are_named() -> None:
    figure = latent_plane(_means(4), [1.0, float("nan"), 2.0, 1.0])
    assert _legend(figure) == ["1", "2", "no label"]
    assert _legend(latent_plane(_means(4), np.array(["x", None, "y", 3], dtype=object)))[-1] == "no label"


def test_labels_of_any_spelling_stand_in_the_legend() -> None:
    assert _legend(latent_plane(_means(4), ["_x", "a$b$", "x" * 40, ""])) == [
        "",
        "_x",
        r"a\$b\$",
        "x" * 19 + "…",
    ]


def test_the_two_widest_dimensions_are_drawn_and_named() -> None:
    means = _means(200, 4) * [0.1, 1.0, 0.01, 5.0]
    axes = (figure := latent_plane(means)).axes[0]
    np.testing.assert_array_equal(_sorted(_points(figure)), _sorted(means[:, [3, 1]]))
    assert axes.get_xlabel() == "$z_{4}$  (largest variance of 4 dimensions)"
    assert axes.get_ylabel() == "$z_{2}$  (second largest of 4)"


@pytest.mark.parametrize("num_data", [3, 1000])
def test_ellipses_are_one_sd(num_data: int) -> None:
    means = _means(num_data, 3) * [1.0, 9.0, 4.0]
    scales = np.abs(_means(num_data, 3)) + 0.1
    figure = latent_plane(means, scales=scales)
    ellipses = next(item for item in figure.axes[0].collections if isinstance(item, EllipseCollection))
    centres = np.asarray(ellipses.get_offsets())
    assert len(centres) == min(num_data, 100)
    for centre, width, height in zip(centres, ellipses.get_widths(), ellipses.get_heights(), strict=True):
        row = int(np.flatnonzero((means[:, [1, 2]] == centre).all(axis=1))[0])
        np.testing.assert_allclose([width, height], 2 * scales[row, [1, 2]])
    assert ("(100 data)" in figure.axes[0].get_title(loc="left")) == (num_data > 100)


def test_one_dimension_is_a_row_a_class() -> None:
    means, labels = _means(90, 1), np.repeat(["low", "middle", "high"], 30)
    figure = latent_plane(means, labels, scales=np.full((90, 1), 0.2))
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["high", "low", "middle"]
    heights = dict(_points(figure).tolist())
    for mean, label in zip(means[:, 0], labels, strict=True):
        assert abs(heights[mean] - names.index(label)) < 0.5


def test_one_dimension_without_labels_is_a_histogram_of_all() -> None:
    axes = latent_plane(_means(90, 1)).axes[0]
    bars = [patch.get_height() for patch in axes.containers[0]]
    assert sum(bars) == 90


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("value", [0.0, 7.5, float("nan")])
@pytest.mark.parametrize("labelled", [False, True])
def test_constant_and_missing_means_can_be_drawn(dim: int, value: float, labelled: bool) -> None:
    means = np.full((5, dim), value)
    labels = ["same"] * 5 if labelled else None
    latent_plane(means, labels, scales=means * 0).canvas.draw()
    means[0] = 1.0
    latent_plane(means, labels).canvas.draw()


def test_wrong_shapes_are_errors() -> None:
    with pytest.raises(ShapeError, match=r"labels: expected shape \(60,\), got \(59,\)"):
        latent_plane(_means(), np.zeros(59))
    with pytest.raises(ShapeError, match=r"scales: expected shape \(60, 2\)"):
        latent_plane(_means(), scales=np.ones((60, 3)))
    with pytest.raises(ShapeError, match="means: expected 2 dimensions"):
        latent_plane(np.zeros(3))
    with pytest.raises(ArgumentError, match="means: expected at least one row"):
        latent_plane(np.zeros((0, 2)))
