"""The pictures of latent usage and prediction show their numbers."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import probvae
from probvae.diagnostics.prediction.predictive_check import predictive_check
from probvae.diagnostics.usage.latent_usage import latent_usage
from probvae.errors import ShapeError
from probvae.inference import FreeGuide
from probvae.models import GaussianLikelihood, LatentModel, LinearDecoder, StandardNormalPrior
from probvae.report.drawing.style import BLUE, ORANGE, PALE
from probvae.report.figures.latent_usage_figure import aggregate_posterior, kl_by_dimension
from probvae.report.figures.prediction_figure import evidence_curves, replicated_statistics, typical_images
from probvae.report.sections.latent_usage_section import LATENT_USAGE
from probvae.report.sections.prediction_section import PREDICTION
from tests.report.subjects import subject_of


def inside(figure: Figure) -> bool:
    """Whether all text is on the picture."""
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    texts = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes)


@pytest.mark.parametrize("number", [1, 2, 6, 40])
def test_bars_are_the_kls_and_off_ones_are_grey(number: int) -> None:
    kl, active = np.linspace(2, 0, number), np.linspace(2, 0, number) > 0.5
    figure = kl_by_dimension(kl, 0.1 * kl, active)
    bars = figure.axes[0].patches[:number]
    assert [bar.get_height() for bar in bars] == pytest.approx(kl)
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [BLUE if on else PALE for on in active]
    segments = figure.axes[0].containers[1].lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in segments] == [pytest.approx([0.8 * k, 1.2 * k]) for k in kl]
    assert sum(text.get_text() == "off" for text in figure.axes[0].texts) == (~active).sum() * (number <= 16)
    assert inside(figure)
    with pytest.raises(ShapeError, match="active: expected shape"):
        kl_by_dimension(kl, kl, [True] * (number + 1))


def test_draws_of_both_are_points_with_histograms_of_equal_area() -> None:
    rng = np.random.default_rng(0)
    z, prior_z = rng.normal(size=(50, 3)), rng.normal(size=(200, 3))
    figure = aggregate_posterior(z, prior_z, [0, 2])
    plane, above, beside = figure.axes
    more, fewer = plane.collections
    np.testing.assert_allclose(more.get_offsets(), prior_z[:, [0, 2]])
    np.testing.assert_allclose(fewer.get_offsets(), z[:, [0, 2]])
    assert (plane.get_xlabel(), plane.get_ylabel()) == ("$z_{1}$", "$z_{3}$")
    for axes in (above, beside):
        areas = [np.sum(patch.get_data().values * np.diff(patch.get_data().edges)) for patch in axes.patches]
        assert areas == pytest.approx([1, 1])
    assert inside(figure)


def test_one_latent_has_histograms_only() -> None:
    figure = aggregate_posterior(np.zeros((2, 1)), np.ones((3, 1)), [0])
    assert len(figure.axes) == 1
    assert not figure.axes[0].collections


@pytest.mark.parametrize("number", [1, 2, 11])
def test_each_statistic_has_a_panel_with_its_line_inside(number: int) -> None:
    names = [f"statistic {index}" for index in range(number)]
    observed, replicated = np.linspace(-20, 20, number), np.random.default_rng(0).normal(size=(99, number))
    figure = replicated_statistics(names, observed, replicated, np.full(number, 0.01))
    assert [axes.get_title("left") for axes in figure.axes] == [f"{name}\np = 0.01" for name in names]
    for axes, value in zip(figure.axes, observed, strict=True):
        assert axes.lines[0].get_xdata()[0] == value
        assert to_hex(axes.lines[0].get_color()).upper() == ORANGE
        assert axes.get_xlim()[0] < value < axes.get_xlim()[1]
    assert inside(figure)


def test_a_constant_statistic_is_a_picture() -> None:
    replicated_statistics(["zeros"], [0.0], np.zeros((9, 1)), [1.0])


def test_curves_are_the_two_distributions() -> None:
    log_p, simulated = np.array([3.0, -1.0, 2.0]), np.array([0.0, 1.0])
    model, ours = evidence_curves(log_p, simulated).axes[0].lines
    assert sorted(set(ours.get_xdata())) == [-1, 2, 3]
    assert ours.get_ydata()[-1] == model.get_ydata()[-1] == 1
    assert sorted(set(model.get_xdata())) == [0, 1]


def test_images_stand_in_rows_by_name() -> None:
    x = np.random.default_rng(0).random((12, 6))
    figure = typical_images([("least", x[:3]), ("most", x)], (2, 3), (0.0, 1.0))
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_array_equal(canvas[:2, :3], x[0].reshape(2, 3))
    labels = dict(
        zip([t.get_text() for t in figure.axes[0].get_yticklabels()], figure.axes[0].get_yticks(), strict=True)
    )
    top = round(labels["most"] - 0.5)
    np.testing.assert_array_equal(canvas[top : top + 2, 28:31], x[7].reshape(2, 3))
    assert np.isnan(canvas[:2, 12:15]).all()


def test_sections_hold_their_illustrations() -> None:
    torch.manual_seed(0)
    vae, x = probvae.VAE.example(), torch.randn(30, 3)
    first, second = LATENT_USAGE.illustrations(latent_usage(vae, x, num_permutations=9), subject_of(vae, x))
    assert (first.name, second.name) == ("latent-kl", "aggregate-posterior")
    assert "How to read it" in first.caption
    assert "nats per datum" in second.caption
    result = predictive_check(vae, x, num_replicates=19, num_simulated=50, num_draws=1)
    names = [one.name for one in PREDICTION.illustrations(result, subject_of(vae, x, (1, 3)))]
    assert names == ["replicated-statistics", "log-evidence", "least-and-most-probable"]
    table = PREDICTION.illustrations(result, subject_of(vae, x))
    assert [one.name for one in table] == names[:2]
    assert f"rows of the data are {int(result.typicality.log_p.argmin())}," in table[1].caption
    assert "(counted from 0; log p(x) by exact)" in table[1].caption


def test_images_are_the_least_and_most_probable() -> None:
    vae, x = probvae.VAE.example(), torch.randn(30, 3)
    result = predictive_check(vae, x, num_replicates=9, num_simulated=50, num_draws=1)
    figure = PREDICTION.illustrations(result, subject_of(vae, x, (1, 3)))[2].figure
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    order = result.typicality.log_p.argsort()
    np.testing.assert_allclose(canvas[0, :3], x[order[0]].double())
    np.testing.assert_allclose(canvas[-1, :3], x[order[-1]].double())


def test_what_was_not_computed_is_not_drawn() -> None:
    x = torch.randn(6, 3)
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3))
    vae = probvae.VAE(model, FreeGuide(2, 3, 6).start_from(x))
    result = predictive_check(vae, x, num_replicates=9, num_draws=1)
    assert [one.name for one in PREDICTION.illustrations(result, subject_of(vae, x, (1, 3)))] == [
        "replicated-statistics"
    ]
