"""The ledger's and the weights' pictures show their numbers."""

import numpy as np
import pytest
import torch

from probvae.diagnostics.ledger.gap import Gap
from probvae.diagnostics.ledger.unsplit import UnsplitLedger
from probvae.errors import ShapeError
from probvae.inference.evidence.log_evidence import log_evidence
from probvae.inference.pair import VAE
from probvae.report.figures import CurvePanel, posterior_curves
from probvae.report.figures.importance_figure import effective_draws, pareto_k
from probvae.report.figures.ledger_figure import Mean, ledger, total_gap
from probvae.report.run_figures import posterior_figure
from tests.support.vaes import absolute_vae


def test_ledger_bars_are_the_means_with_their_errors() -> None:
    approximation, amortisation = np.array([0.1, 0.3, 0.2]), np.array([1.0, 3.0, 2.0])
    top, bottom = ledger(approximation, amortisation, (Mean(0.2, 0.05), Mean(2.0, 0.5))).axes
    assert [(bar.get_x(), bar.get_width()) for bar in top.patches] == [(0.0, 0.2), (0.2, 2.0)]
    whiskers = [container.lines[2][0].get_segments()[0][:, 0] for container in top.containers[1::2]]
    np.testing.assert_allclose(whiskers, [(0.15, 0.25), (1.7, 2.7)])
    lines = {line.get_label(): line.get_ydata() for line in bottom.lines}
    np.testing.assert_allclose(lines["total"], [1.1, 2.2, 3.3])
    np.testing.assert_allclose(lines["approximation (the guide's family)"], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(lines["amortisation (its encoder)"], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "gaps", [[0.0], [0.0, 0.0, 0.0], [-1e-3, 2e-3], [1e-8, 1e4, 3.0]], ids=["one datum", "exact", "noise", "wide"]
)
def test_ledger_of_any_gaps(gaps: list[float]) -> None:
    figure = ledger(gaps, np.zeros(len(gaps)), (Mean(float(np.mean(gaps)), None), Mean(0.0, None)))
    assert all(np.isfinite(axes.get_ylim()).all() for axes in figure.axes)
    assert figure.get_suptitle().startswith(f"The gap of {len(gaps)} dat")


def test_ledger_refuses_gaps_of_other_data() -> None:
    with pytest.raises(ShapeError, match="amortisation"):
        ledger([1.0, 2.0], [1.0], (Mean(1.5, None), Mean(1.0, None)))


def test_pareto_k_is_sorted_and_graded() -> None:
    figure = pareto_k([0.9, -np.inf, 0.2, np.nan, 7.0], threshold=0.7)
    good, bad = (points.get_offsets().data for points in figure.axes[0].collections)
    np.testing.assert_allclose(good, [(12.5, -1.0), (37.5, 0.2)])  # constant weights at the lower edge
    np.testing.assert_allclose(bad, [(62.5, 0.9), (87.5, 3.0)])  # beyond the upper edge
    assert figure.axes[0].get_title() == ""
    assert figure.axes[0].get_title(loc="left") == "at most the threshold: 2 of 5"
    assert figure.axes[0].get_title(loc="right") == "1 unknown"
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == [0.7, 1.0]


@pytest.mark.parametrize("values", [[0.3], [np.nan], [-np.inf] * 5, [np.inf]])
def test_pareto_k_of_any_values(values: list[float]) -> None:
    low, high = pareto_k(values, 0.5).axes[0].get_ylim()
    assert low < 0.5 < 1 < high


def test_effective_draws_are_counted() -> None:
    axes = effective_draws([0.01, 0.02, 0.99, np.nan], num_samples=1000).axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    assert (heights[0], heights[-1], sum(heights)) == (2, 1, 3)
    assert axes.get_title(loc="left") == "median 2 %"


def test_total_gap_alone_is_sorted() -> None:
    axes = total_gap([3.0, 1.0, 2.0], Mean(2.0, 0.5)).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1.0, 2.0, 3.0])
    assert axes.get_title(loc="left") == "mean 2 ± 0.5"


def test_posterior_curves_are_the_densities() -> None:
    axis = np.linspace(-3, 3, 61)
    exact, narrow = np.exp(-(axis**2) / 2), 10 * np.exp(-50 * axis**2)
    figure = posterior_curves([CurvePanel("a", axis, exact, narrow, None), CurvePanel("b", axis, exact, exact, exact)])
    first, second, empty = figure.axes
    np.testing.assert_allclose(first.lines[0].get_ydata(), narrow)
    assert first.get_ylim() == (0, pytest.approx(2.1))  # a narrow guide does not press the posterior flat
    assert second.get_ylim() == (0, pytest.approx(1.05))
    assert (len(first.lines), len(second.lines), len(empty.lines)) == (1, 2, 0)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["exact", "guide", "best of its family"]


def test_exact_posterior_of_one_latent_is_where_both_modes_are() -> None:
    vae, x = absolute_vae(0.1), torch.tensor([[1.0], [0.5]], dtype=torch.float64)
    gap = UnsplitLedger(Gap(torch.ones(2), torch.zeros(2)), log_evidence(vae, x), "a test")
    axes = posterior_figure(vae, x, gap).axes[0]
    outline = axes.collections[0].get_paths()[0].vertices
    at = [float(outline[np.abs(outline[:, 0] - place).argmin(), 1]) for place in (-0.9, 0.0, 0.9)]
    # p(z|x) of x ~ N(|z|, 0.1): half the mass in each truncated normal, with mean 1 / 1.1 and variance 0.1 / 1.1
    expected = 0.5 / np.sqrt(2 * np.pi * 0.1 / 1.1)
    np.testing.assert_allclose([at[0], at[2]], expected, rtol=0.02)
    assert at[1] < 0.05 * expected


@pytest.mark.parametrize("vae", [absolute_vae(0.1), VAE.example().double()], ids=["d = 1", "d = 2"])
def test_posteriors_that_no_grid_covers_are_left_out(vae: VAE) -> None:
    x = torch.full((2, vae.model.data_dim), 1e18, dtype=torch.float64)
    x[1] = 0.5
    gap = UnsplitLedger(Gap(torch.ones(2), torch.zeros(2)), log_evidence(vae, x[1:]), "a test")
    drawn = [axes for axes in posterior_figure(vae, x, gap).axes if axes.collections]
    assert [axes.get_title(loc="left") for axes in drawn] == ["datum 1: 1 nats"]
    assert posterior_figure(vae, x[[0, 0]], gap) is None
