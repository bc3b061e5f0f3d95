"""The learning curve shows its history, and bad epochs do not hide it."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from probvae.errors import ArgumentError
from probvae.report.figures import learning_curve


def _history(num_epochs: int) -> list[dict[str, float | None]]:
    return [
        {
            "epoch": epoch,
            "elbo": -100.0 - 50.0 / epoch,
            "kl": 3.0 + 0.1 * epoch,
            "variance": 0.5**epoch,
            "validation_elbo": -101.0 - 50.0 / epoch if epoch % 2 == 0 else None,
        }
        for epoch in range(1, num_epochs + 1)
    ]


def _line(figure: Figure, name: str) -> tuple[list[float], list[float]]:
    lines = [line for axes in figure.axes for line in axes.lines if line.get_label() == name]
    assert len(lines) == 1
    return list(lines[0].get_xdata()), list(lines[0].get_ydata())


def _remarks(figure: Figure) -> list[str]:
    return [axes.get_title(loc="right") for axes in figure.axes]


def test_lines_are_the_history() -> None:
    history = _history(12)
    figure = learning_curve(history)
    assert len(figure.axes) == 3
    for name, key in {"training": "elbo", "validation": "validation_elbo", "KL": "kl"}.items():
        expected = [(row["epoch"], row[key]) for row in history if row[key] is not None]
        assert list(zip(*_line(figure, name), strict=True)) == expected
    assert _line(figure, "variance")[1] == [row["variance"] for row in history]
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "linear", "log"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "ELBO (nats per datum)",
        "KL(q || p) (nats per datum)",
        "variance c of p(x|z) (log axis)",
    ]


def test_the_lines_carry_their_names_without_overlap() -> None:
    figure = learning_curve([{"epoch": e, "elbo": -50.0 - e, "kl": 1.0, "validation_elbo": -50.0 - e} for e in (1, 2)])
    names = {text.get_text(): text for text in figure.axes[0].texts}
    assert set(names) == {"training", "validation"}
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in names.values()]
    assert not boxes[0].overlaps(boxes[1])


@pytest.mark.parametrize("missing", [{}, {"variance": None}, {"variance": float("nan")}, {"variance": 0.0}])
def test_no_panel_for_a_variance_that_is_not_there(missing: dict[str, float | None]) -> None:
    history = [{"epoch": epoch, "elbo": -1.0, "kl": 0.0, **missing} for epoch in (1, 2)]
    assert len(learning_curve(history).axes) == 2


def test_bad_epochs_do_not_squash_the_axis() -> None:
    history = _history(40)
    history[0]["elbo"], history[1]["elbo"] = -1e9, -1e6
    figure = learning_curve(history)
    low, high = figure.axes[0].get_ylim()
    assert -130 < low < -110
    assert high >= -101.25
    hidden = sum(row["elbo"] is not None and row["elbo"] < low for row in history)
    assert _remarks(figure)[0] == f"{hidden} epochs out of view"
    assert -1e9 in _line(figure, "training")[1]


def test_without_outliers_all_is_in_view() -> None:
    figure = learning_curve([{"epoch": e, "elbo": -200.0 + e, "kl": 1.0 * e} for e in range(1, 51)])
    low, high = figure.axes[0].get_ylim()
    assert low < -199
    assert high > -150
    assert _remarks(figure) == ["", ""]


def test_one_epoch_is_a_visible_point() -> None:
    figure = learning_curve(_history(1))
    line = next(line for line in figure.axes[0].lines if line.get_label() == "training")
    assert line.get_marker() == "o"
    assert list(figure.axes[-1].get_xticks()) == [1]
    low, high = figure.axes[0].get_ylim()
    assert low < -150 < high


def test_values_that_are_not_finite_are_left_out_and_named() -> None:
    figure = learning_curve(
        [{"epoch": e, "elbo": v, "kl": float("nan")} for e, v in enumerate([float("-inf"), -3.0, float("nan")])]
    )
    assert _line(figure, "training") == ([1.0], [-3.0])
    assert _remarks(figure)[1] == "no finite values"
    figure.canvas.draw()


@pytest.mark.parametrize("values", [[1e-6, 1.0], [0.1, 0.1], [0.101, 0.102], [3e-5, 7e-5]])
def test_the_log_axis_has_at_least_two_ticks_in_view(values: list[float]) -> None:
    axes = learning_curve([{"epoch": e, "elbo": 0.0, "kl": 0.0, "variance": v} for e, v in enumerate(values)]).axes[2]
    low, high = axes.get_ylim()
    ticks = axes.get_yticks()
    assert low < min(values)
    assert high > max(values)
    assert 2 <= np.sum((ticks >= low) & (ticks <= high)) <= 7


def test_an_empty_history_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="history: expected one mapping an epoch, got none"):
        learning_curve([])
