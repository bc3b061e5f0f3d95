"""Which pictures a run gets, and from what numbers."""

from pathlib import Path

import numpy as np

from probvae.data import Dataset
from probvae.experiment import Experiment, as_tensor, load_recipe_data
from probvae.generation import Sample, decode_grid, sample
from probvae.inference import posterior_mean, posterior_scale, reconstruct
from probvae.recipes import read_run_recipe
from probvae.report import figures

NUM_PAIRS = 16
NUM_SAMPLES = 64
GRID_EXTENT = 3.0


def draw_fit(experiment: Experiment) -> None:
    """The pictures of a fresh fit: learning curve, latent plane, reconstructions, samples, and the decoded grid."""
    vae, data, folder = experiment.vae, experiment.held_out, experiment.run.figures
    folder.mkdir(exist_ok=True)
    x = as_tensor(data)
    figures.save_figure(figures.learning_curve(experiment.fit.history), folder, "learning-curve")
    draw_latent_plane(posterior_mean(vae, x).numpy(), data.labels, folder, posterior_scale(vae, x).numpy())
    draw_reconstructions(data, reconstruct(vae, x[: _num_shown(data)]).numpy(), folder)
    _draw_sample(sample(vae, NUM_SAMPLES), data, folder)
    if vae.model.latent_dim == 2 and data.image_shape is not None:
        images = decode_grid(vae, num_points=15, extent=GRID_EXTENT).numpy()
        figure = figures.decoded_grid(images, data.image_shape, (-GRID_EXTENT, GRID_EXTENT))
        figures.save_figure(figure, folder, "decoded-grid")


def draw_samples(run: Path, drawn: Sample, folder: Path) -> Path:
    """The picture of `probvae sample`; the run's data give the images' shape."""
    return _draw_sample(drawn, load_recipe_data(read_run_recipe(run)), folder)


def draw_reconstructions(data: Dataset, reconstruction: np.ndarray, folder: Path) -> Path:
    """The first data beside their reconstructions."""
    num = min(_num_shown(data), len(reconstruction))
    figure = figures.reconstructions(data.x[:num], reconstruction[:num], data.image_shape, data.feature_names)
    return figures.save_figure(figure, folder, "reconstructions")[0]


def draw_latent_plane(
    mean: np.ndarray, labels: np.ndarray | None, folder: Path, scale: np.ndarray | None = None
) -> Path:
    """The posterior means, coloured by label."""
    return figures.save_figure(figures.latent_plane(mean, labels, scales=scale), folder, "latent-plane")[0]


def _draw_sample(drawn: Sample, data: Dataset, folder: Path) -> Path:
    # images show E[x|z]: the draw's own noise is white and hides it
    shown = drawn.mean if data.image_shape is not None else drawn.x
    figure = figures.samples(shown.numpy(), data.image_shape, data=data.x, feature_names=data.feature_names)
    return figures.save_figure(figure, folder, "samples")[0]


def _num_shown(data: Dataset) -> int:
    return NUM_PAIRS if data.image_shape is not None else data.num_data
