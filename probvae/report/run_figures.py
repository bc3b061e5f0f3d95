"""The figures that commands save beside a run, made from a VAE and its data."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Distribution

from probvae.applications.sampling import Sample, decode_grid, sample
from probvae.data import Dataset
from probvae.diagnostics import GapResult
from probvae.diagnostics.ledger.unsplit import UnsplitLedger
from probvae.experiments.compare import Comparison, Difference, label_of
from probvae.experiments.recipe_data import as_tensor
from probvae.experiments.run import Experiment
from probvae.inference import posterior_mean, posterior_scale, reconstruct
from probvae.inference.evidence.quadrature import QuadratureError, QuadratureResult, posterior_grid, quadrature
from probvae.inference.guides import Guide
from probvae.inference.guides.families import as_normal
from probvae.inference.pair import VAE
from probvae.report import figures
from probvae.report.sections.base import as_double
from probvae.storage.files import staged

NUM_PAIRS = 16
# The settings that move a fit along the curve of rate and distortion, with their names in the figure
_TRADE_OFFS = {"model.likelihood.variance": "c", "inference.objective.beta": "β"}
NUM_SAMPLES = 64
NUM_POSTERIORS = 6
GRID_EXTENT = 3.0
_GRID_POINTS = 81
_CURVE_POINTS = 401
_TOLERANCE = 1e-2  # nats: no eye sees a smaller difference
_DRAWS_OF_A_REGION = 2000


def draw_fit(experiment: Experiment) -> None:
    """The figures of a fresh fit: learning curve, latent plane, reconstructions, samples, and the decoded grid."""
    with staged(experiment.run.folder) as stage:
        _draw_fit(experiment, stage / experiment.run.figures.name)


def _draw_fit(experiment: Experiment, folder: Path) -> None:
    vae, data = experiment.vae, experiment.held_out
    x = as_tensor(data)
    figures.save_figure(figures.learning_curve(experiment.fit.history), folder, "learning-curve")
    draw_latent_plane(posterior_mean(vae, x).numpy(), data.labels, folder, posterior_scale(vae, x).numpy())
    draw_reconstructions(data, reconstruct(vae.at(slice(num_shown(data))), x[: num_shown(data)]).numpy(), folder)
    draw_samples(sample(vae, NUM_SAMPLES), data, folder, vae.model.likelihood.point_name)
    if vae.model.latent_dim == 2 and data.image_shape is not None:
        images = decode_grid(vae.at(slice(1)), num_points=15, extent=GRID_EXTENT).numpy()
        figure = figures.decoded_grid(images, data.image_shape, (-GRID_EXTENT, GRID_EXTENT))
        figures.save_figure(figure, folder, "decoded-grid")
    if experiment.gap is not None:
        draw_posteriors(vae, experiment.x, experiment.gap, folder)


def draw_posteriors(vae: VAE, x: Tensor, gap: GapResult | UnsplitLedger, folder: Path) -> Path | None:
    """Save :func:`posterior_figure` of ``x`` (N, D), where there is one."""
    figure = posterior_figure(vae, x, gap)
    return None if figure is None else figures.save_figure(figure, folder, "posteriors")[0]


def posterior_figure(vae: VAE, x: Tensor, gap: GapResult | UnsplitLedger, num: int = NUM_POSTERIORS) -> Figure | None:
    """Exact posteriors with the guide on top, for rows of ``x`` (N, D) from the smallest to the largest gap.

    Rows whose posterior no grid covers are left out. None where there is no other row, and for d > 2.
    """
    if vae.model.latent_dim > 2:
        return None
    order = gap.total.value.argsort()
    rows = order[torch.linspace(0, len(order) - 1, min(num, len(order))).round().long()].tolist()
    refined = gap.refined if isinstance(gap, GapResult) else None
    parts = [
        (vae.at(slice(row, row + 1)), x[row : row + 1], f"datum {row}: {float(gap.total.value[row]):.3g} nats", refined)
        for row in rows
    ]
    pairs = [(*part, truth) for part, truth in zip(parts, _truths(vae, x, rows), strict=True) if truth is not None]
    if not pairs:
        return None
    if vae.model.latent_dim == 1:
        return figures.posterior_curves([_curves(*pair) for pair in pairs])
    return figures.posterior_contours([_panel(*pair) for pair in pairs])


def _truths(vae: VAE, x: Tensor, rows: list[int]) -> list[QuadratureResult | None]:
    """The posterior of each of some data, None where no grid covers it.

    All are integrated together, which share the decoder's values, but where covariates or a posterior forbid it.
    """
    if vae.groups(len(x)) is None:
        with suppress(QuadratureError):
            whole = quadrature(vae.model, x[rows], tolerance=_TOLERANCE)
            return [QuadratureResult(*(values[number : number + 1] for values in whole)) for number in range(len(rows))]
    return [_truth(vae.at(slice(row, row + 1)), x[row : row + 1]) for row in rows]


def _truth(vae: VAE, x: Tensor) -> QuadratureResult | None:
    with suppress(QuadratureError):
        return quadrature(vae.model, x, tolerance=_TOLERANCE)
    return None


@torch.no_grad()
def _curves(vae: VAE, x: Tensor, title: str, refined: Guide | None, truth: QuadratureResult) -> figures.CurvePanel:
    (axis,), log_density = posterior_grid(vae.model, x, num_points=_CURVE_POINTS, truth=truth)
    nodes = axis.to(x).reshape(-1, 1, 1)
    guide = as_double(vae.guide.distribution(x).log_prob(nodes)[:, 0].exp())
    best = None if refined is None else as_double(refined.distribution(x).log_prob(nodes)[:, 0].exp())
    return figures.CurvePanel(title, as_double(axis), as_double(log_density[0].exp()), guide, best)


@torch.no_grad()
def _panel(vae: VAE, x: Tensor, title: str, refined: Guide | None, truth: QuadratureResult) -> figures.PosteriorPanel:
    axes, log_density = posterior_grid(vae.model, x, num_points=_GRID_POINTS, truth=truth)
    first, second = (axis.cpu().numpy() for axis in axes)
    guide = _in_plane(vae.guide.distribution(x))
    best = None if refined is None else _in_plane(refined.distribution(x))
    return figures.PosteriorPanel(title, first, second, log_density[0].T.cpu().numpy(), guide, best)


def _in_plane(q: Distribution) -> figures.NormalInPlane | figures.DensityInPlane:
    """q of one datum, as the picture draws it."""
    normal = as_normal(q)
    if normal is not None:
        loc, factor, _ = normal
        return figures.NormalInPlane(*(as_double(value[0]) for value in (loc, factor @ factor.mT)))
    low, high = q.sample(torch.Size((_DRAWS_OF_A_REGION,)))[:, 0].aminmax(dim=0)
    axes = [torch.linspace(float(a), float(b), _GRID_POINTS).to(low) for a, b in zip(low, high, strict=True)]
    nodes = torch.cartesian_prod(*axes)
    log_density = q.log_prob(nodes.unsqueeze(1)).reshape(_GRID_POINTS, _GRID_POINTS).T
    return figures.DensityInPlane(*map(as_double, (*axes, log_density)))


def draw_comparison(comparison: Comparison, folder: Path) -> None:
    """The paired differences, and where c or beta was swept the rate and the distortion."""
    base = comparison.entries[comparison.baseline]
    others = [entry for entry in comparison.entries if entry is not base]
    if others:
        elbo, evidence = (
            [_estimate(comparison.difference(entry, what)) for entry in others] for what in ("elbo", "evidence")
        )
        labels = [
            label for label, entry in zip(comparison.labels, comparison.entries, strict=True) if entry is not base
        ]
        figure = figures.paired_differences(labels, elbo, evidence, comparison.labels[comparison.baseline])
        figures.save_figure(figure, folder, "differences")
    if comparison.changed[0].keys() & set(_TRADE_OFFS):
        figures.save_figure(figures.rate_distortion(_rate_points(comparison)), folder, "rate-distortion")


def _rate_points(comparison: Comparison) -> list[figures.RatePoint]:
    """A point a run; runs that differ in c or beta only are on one line."""
    points = []
    for entry, changed in zip(comparison.entries, comparison.changed, strict=True):
        # a beta that is not in the recipe is one
        known = {"inference.objective.beta": 1.0} | {key: value for key, value in changed.items() if value is not None}
        swept = {key: known[key] for key in changed if key in _TRADE_OFFS and key in known}
        line = label_of({key: value for key, value in changed.items() if key not in _TRADE_OFFS})
        name = ", ".join(
            f"{_TRADE_OFFS[key]} {value:g}" if isinstance(value, float) else f"{_TRADE_OFFS[key]} {value}"
            for key, value in swept.items()
        )
        rate, distortion = entry.summary["kl"]["value"], -entry.summary["log_likelihood"]["value"]
        points.append(figures.RatePoint(line, name, rate, distortion))
    return points


def _estimate(difference: Difference | None) -> tuple[float, float | None] | None:
    return None if difference is None else (difference.value, difference.standard_error)


def draw_reconstructions(data: Dataset, reconstruction: np.ndarray, folder: Path) -> Path:
    """:func:`reconstruction_figure`, saved."""
    return figures.save_figure(reconstruction_figure(data, reconstruction), folder, "reconstructions")[0]


def reconstruction_figure(data: Dataset, reconstruction: np.ndarray) -> Figure:
    """The first data beside their reconstructions, both in the units of the data."""
    num = min(num_shown(data), len(reconstruction))
    x, model = (data.in_user_units(values[:num]) for values in (data.x, reconstruction))
    return figures.reconstructions(x, model, data.image_shape, data.feature_names)


def draw_latent_plane(
    mean: np.ndarray, labels: np.ndarray | None, folder: Path, scale: np.ndarray | None = None
) -> Path:
    """The posterior means, coloured by label."""
    return figures.save_figure(figures.latent_plane(mean, labels, scales=scale), folder, "latent-plane")[0]


def draw_samples(drawn: Sample, data: Dataset, folder: Path, point_name: str) -> Path:
    """The picture of `probvae sample`; the run's data give the images' shape."""
    return figures.save_figure(sample_figure(drawn, data, point_name), folder, "samples")[0]


def sample_figure(drawn: Sample, data: Dataset, point_name: str) -> Figure:
    """Draws from the model, beside the ranges of the data, in the units of the data."""
    # images show E[x|z]: the draw's own noise is white and hides it
    shown = drawn.mean if data.image_shape is not None else drawn.x
    drawn_values, values = (data.in_user_units(np.asarray(part)) for part in (shown.numpy(), data.x))
    return figures.samples(
        drawn_values, data.image_shape, data=values, feature_names=data.feature_names, point_name=point_name
    )


def num_shown(data: Dataset) -> int:
    """How many data a picture of reconstructions shows: a few images, or the whole table."""
    return NUM_PAIRS if data.image_shape is not None else data.num_data
