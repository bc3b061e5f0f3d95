"""Samples, reconstructions and the latent plane of a model, with the posteriors of some data."""

from torch import Tensor

from probvae.data import Dataset
from probvae.diagnostics import GapResult
from probvae.generation import sample
from probvae.inference import posterior_mean, posterior_scale, reconstruct
from probvae.report import figures
from probvae.report.illustration import Illustration
from probvae.report.run_figures import NUM_SAMPLES, num_shown, posterior_figure, reconstruction_figure, sample_figure
from probvae.vae import VAE

_SAMPLES = (
    "New data, drawn from the model: z from the prior, then x from p(x|z){what}. How to read it: a good model's samples "
    "could be mistaken for data, and none of the data's kinds is missing."
)
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
    "one with the largest. How to read it: an orange line elsewhere than the blue is the encoder's fault; a dashed one "
    "(the best of the family) that cannot follow the blue shape is the family's. A good one: the orange line runs along "
    "the edge of the middle blue."
)


def illustrations(vae: VAE, data: Dataset, x: Tensor, gap: GapResult | None, seed: int = 0) -> list[Illustration]:
    """What a reader wants to see of a model; exact posteriors where there are two latents and the ledger is there."""
    first = slice(num_shown(data))
    rows = reconstruct(vae.at(first), x[first]).cpu().numpy()
    plane = figures.latent_plane(
        posterior_mean(vae, x).cpu().numpy(), data.labels, scales=posterior_scale(vae, x).cpu().numpy()
    )
    posteriors = posterior_figure(vae, x, gap) if gap is not None else None
    drawn = sample(vae, NUM_SAMPLES, seed)
    what = "; shown is E[x|z], without the noise" if data.image_shape is not None else ""
    found = [
        Illustration(
            "samples",
            sample_figure(drawn, data, vae.model.likelihood.point_name),
            _SAMPLES.format(what=what),
        ),
        Illustration("reconstructions", reconstruction_figure(data, rows), _RECONSTRUCTIONS),
        Illustration("latent-plane", plane, _PLANE),
    ]
    return found if posteriors is None else [*found, Illustration("posteriors", posteriors, _POSTERIORS)]
