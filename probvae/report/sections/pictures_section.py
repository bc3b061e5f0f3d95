"""Samples, reconstructions and the latent plane of a model, with the posteriors of some data."""

from matplotlib.figure import Figure
from torch import Tensor

from probvae.applications.generation import sample
from probvae.data import Dataset
from probvae.diagnostics import GapResult
from probvae.diagnostics.ledger.unsplit import UnsplitLedger
from probvae.inference import posterior_mean, posterior_scale, reconstruct
from probvae.inference.pair import VAE
from probvae.report.figures import latent_plane
from probvae.report.illustration import Illustration
from probvae.report.run_figures import NUM_SAMPLES, num_shown, posterior_figure, reconstruction_figure, sample_figure

_SAMPLES = (
    "New data, drawn from the model: z from the prior, then x from p(x|z){what}. How to read it: a good model's "
    "samples could be mistaken for data, and none of the data's kinds is missing."
)
_WITHOUT_NOISE = "; shown is E[x|z], without the noise"
_RECONSTRUCTIONS = (
    "Data, and what the model makes of their posterior mean. How to read it: what the two have in common went through "
    "z; what differs the model puts down to noise. A good one keeps what the data are told apart by."
)
_PLANE = (
    "The posterior means of the data (colours: labels, where there are some). How to read it: with a good fit they "
    "fill the shaded discs about as the prior does; all of them at the centre: the latent is not used."
)
_POSTERIORS = (
    "Exact posteriors (blue, on a grid) with the guide's (orange) on top, from the datum with the smallest gap to the "
    "one with the largest. How to read it: an orange line elsewhere than the blue is the encoder's fault; a dashed "
    "one (the best of the family) that cannot follow the blue shape is the family's. A good one: {good}."
)
_GOOD = {1: "the orange line is the blue hill's outline", 2: "the orange line runs along the edge of the middle blue"}


def illustrations(
    vae: VAE, data: Dataset, x: Tensor, gap: GapResult | UnsplitLedger | None, *, num_posteriors: int = 6, seed: int = 0
) -> list[Illustration]:
    """What a reader wants to see of a model; posteriors where ``gap`` is known and z has one or two dimensions."""
    found = [
        Illustration("samples", *_samples(vae, data, seed)),
        Illustration("reconstructions", _reconstructions(vae, data, x), _RECONSTRUCTIONS),
        Illustration("latent-plane", _plane(vae, data, x), _PLANE),
    ]
    posteriors = None if gap is None else posterior_figure(vae, x, gap, num_posteriors)
    if posteriors is None:
        return found
    return [*found, Illustration("posteriors", posteriors, _POSTERIORS.format(good=_GOOD[vae.model.latent_dim]))]


def _samples(vae: VAE, data: Dataset, seed: int) -> tuple[Figure, str]:
    figure = sample_figure(sample(vae, NUM_SAMPLES, seed), data, vae.model.likelihood.point_name)
    return figure, _SAMPLES.format(what="" if data.image_shape is None else _WITHOUT_NOISE)


def _reconstructions(vae: VAE, data: Dataset, x: Tensor) -> Figure:
    first = slice(num_shown(data))
    return reconstruction_figure(data, reconstruct(vae.at(first), x[first]).cpu().numpy())


def _plane(vae: VAE, data: Dataset, x: Tensor) -> Figure:
    means, scales = (values(vae, x).cpu().numpy() for values in (posterior_mean, posterior_scale))
    return latent_plane(means, data.labels, scales=scales)
