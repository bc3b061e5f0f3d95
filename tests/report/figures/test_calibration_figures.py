"""The lines are the ECDFs of the numbers, and the captions say how to read them."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from probvae.diagnostics import calibration
from probvae.diagnostics.calibration.ranks import ecdf_band
from probvae.errors import ShapeError
from probvae.report.figures.calibration_figure import coverage_curves, rank_differences, scores_and_contraction
from probvae.report.sections.calibration_section import SIMULATED
from tests.diagnostics.faults import faulty
from tests.report.subjects import subject_of
from tests.support.vaes import exact_guide_vae

POINTS = np.linspace(0, 1, 21)[1:-1]
BAND = ecdf_band(200, POINTS)
RNG = np.random.default_rng(0)


def line(figure: Figure, name: str) -> tuple[np.ndarray, np.ndarray]:
    (found,) = [entry for entry in figure.axes[0].lines if entry.get_label() == name]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def test_rank_lines_are_differences_of_ecdfs() -> None:
    u, weights = RNG.uniform(size=(200, 2)), RNG.uniform(size=200)
    figure = rank_differences(u, weights, POINTS, BAND)
    for name, values in (("$z_{1}$", u[:, 0]), ("$z_{2}$", u[:, 1]), ("log weight", weights)):
        x, y = line(figure, name)
        assert np.allclose(x, POINTS)
        assert np.allclose(y, [(values <= p).mean() - p for p in POINTS])


def test_of_many_latents_the_worst_has_a_name() -> None:
    u = RNG.uniform(size=(200, 9))
    u[:, 4] **= 2
    figure = rank_differences(u, u[:, 0], POINTS, BAND)
    assert len(figure.axes[0].lines) == 9 + 2
    assert line(figure, "$z_{5}$")[1].max() > 0.15
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["95 % band", "$z_{5}$", "log weight"]


def test_coverage_lines_are_ecdfs() -> None:
    levels = {"central intervals": RNG.uniform(size=200) ** 2, "balls": RNG.uniform(size=200)}
    figure = coverage_curves(levels, POINTS, BAND)
    for name, values in levels.items():
        assert np.allclose(line(figure, name)[1], [(values <= p).mean() for p in POINTS])
    assert not any(text.get_window_extent().overlaps(figure.axes[0].bbox) for text in figure.legends[0].get_texts())


@pytest.mark.parametrize("contraction", [0.0, 0.5, 0.9999, -0.3, 1.0])
def test_contraction_has_ticks_in_view(contraction: float) -> None:
    figure = scores_and_contraction(RNG.normal(size=(50, 1)), np.full((50, 1), contraction))
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    assert "0" in [label.get_text() for label in axes.get_xticklabels()]
    assert low < -np.log10(max(1 - contraction, 1e-7)) < high


def test_far_scores_are_drawn_at_the_edge() -> None:
    figure = scores_and_contraction(np.full((5, 1), 1e6), np.full((5, 1), 0.5))
    cloud = next(entry for entry in figure.axes[0].lines if len(entry.get_xdata()) == 5)
    assert set(cloud.get_ydata()) == {6.0}


def test_wrong_shapes() -> None:
    with pytest.raises(ShapeError, match="log_weight_rank: expected shape"):
        rank_differences(np.ones((5, 2)), np.ones(4), POINTS, BAND)
    with pytest.raises(ShapeError, match="contraction: expected shape"):
        scores_and_contraction(np.ones((5, 2)), np.ones((5, 1)))


def test_section_has_its_pictures() -> None:
    vae = faulty(exact_guide_vae(), "sd x 0.7")
    result = calibration(vae, num_simulations=200, num_draws=50)
    found = SIMULATED.illustrations(result, subject_of(vae, torch.zeros(1, vae.model.data_dim)))
    assert [entry.name for entry in found] == ["calibration-ranks", "calibration-coverage", "calibration-scores"]
    assert all("Good:" in entry.caption for entry in found)
    assert "200 pairs simulated from the model" in found[0].caption
    x, y = line(found[1].figure, "highest-density regions")
    assert y[np.isclose(x, 0.9)][0] == pytest.approx(result.coverage(0.9)["highest_density"]["value"])
