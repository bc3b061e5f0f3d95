"""The pictures of a comparison show its numbers."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from probvae.report.figures import RatePoint, paired_differences, rate_distortion


def overlaps(figure: Figure, texts: list) -> int:
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in texts]
    return sum(a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[:number])


def test_points_and_bars_are_the_differences() -> None:
    elbo, evidence = [(-1.0, 0.25), (0.5, None)], [(-0.5, 0.1), None]
    axes = paired_differences(["first", "second"], elbo, evidence, "base").axes[0]
    bars = {container.get_label(): container for container in axes.containers}
    assert list(bars["ELBO"].lines[0].get_xdata()) == [-1.0, 0.5]
    assert list(bars["log p(x)"].lines[0].get_xdata()) == [-0.5]
    (segments,) = (bar.get_segments() for bar in bars["ELBO"].lines[2])
    assert [tuple(segment[:, 0]) for segment in segments] == [(-1.5, -0.5), (0.5, 0.5)]  # two standard errors
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]


def test_long_names_stay_inside_the_picture() -> None:
    name = "standard-normal, full-covariance, variance=learned, num_components=10"
    figure = paired_differences([name] * 3, [(1.0, 0.1)] * 3, [None] * 3, name)
    figure.canvas.draw()
    width, _ = figure.canvas.get_width_height()
    texts = [*figure.axes[0].get_yticklabels(), figure._suptitle]
    assert all(text.get_window_extent().x0 >= 0 and text.get_window_extent().x1 <= width for text in texts)
    assert overlaps(figure, figure.axes[0].get_yticklabels()) == 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_dashed_lines_have_one_elbo_each(scale: float) -> None:
    points = [RatePoint("a", f"c {n}", scale * n, scale * (9.0 - 1.5 * n)) for n in range(4)]
    axes = rate_distortion(points).axes[0]
    joined, dashed = axes.lines[0], axes.lines[1:]
    np.testing.assert_allclose(joined.get_xdata(), [point.rate for point in points])
    np.testing.assert_allclose(joined.get_ydata(), [point.distortion for point in points])
    assert len(dashed) >= 3
    sums = [line.get_xdata() + np.asarray(line.get_ydata()) for line in dashed]
    assert all(total[0] == pytest.approx(total[1], abs=1e-9 * scale) for total in sums)
    values = [float(text.get_text()) for text in axes.texts if not text.get_text().startswith("c ")]
    assert values
    for value in values:
        assert min(abs(value + total[0]) for total in sums) < 1e-5 * scale


def test_runs_are_joined_from_the_smallest_rate_on() -> None:
    points = [RatePoint("a", "β 1", 3.0, 1.0), RatePoint("b", "β 1", 2.0, 2.0), RatePoint("a", "β 4", 1.0, 4.0)]
    figure = rate_distortion(points)
    assert [list(line.get_xdata()) for line in figure.axes[0].lines[:2]] == [[1.0, 3.0], [2.0]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert overlaps(figure, [text for text in figure.axes[0].texts if text.get_text().startswith("β")]) == 0


def test_one_run_is_a_picture() -> None:
    figure = rate_distortion([RatePoint("", "c 0.1", 0.0, 0.0)])
    figure.canvas.draw()
    assert not figure.legends
