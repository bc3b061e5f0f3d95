"""Figures of the training."""

import numpy as np
import pytest

from probvae.report.figures.training_figure import bound_by_epoch, gaps_side_by_side, residual_ratios


@pytest.mark.parametrize("num", [1, 50])
def test_residuals_and_their_mean(num: int) -> None:
    values = np.random.default_rng(0).exponential(size=num)
    line, mean, one = residual_ratios(values).axes[0].lines
    assert np.array_equal(line.get_ydata(), np.sort(values))
    assert (mean.get_ydata()[0], one.get_ydata()[0]) == (pytest.approx(values.mean()), 1)


def test_the_bound_and_the_line_through_its_end() -> None:
    bound = np.concatenate([[-500.0, -40.0], -10 + 0.5 * np.arange(18.0)])
    axes = bound_by_epoch(bound, 10).axes[0]
    curve, end = axes.lines
    assert np.array_equal(curve.get_ydata(), bound)
    assert np.allclose(end.get_ydata(), bound[-10:])
    assert -20 < axes.get_ylim()[0] < -8


@pytest.mark.parametrize("factor", [1.0, 1e4])
def test_gaps_of_both_kinds_of_rows(factor: float) -> None:
    first, second = np.arange(30.0), np.append(np.ones(9), factor)
    one, other = gaps_side_by_side(first, second).axes[0].lines
    assert (one.get_label(), other.get_label()) == ("training rows", "held-out rows")
    assert np.array_equal(other.get_ydata(), np.sort(second))
