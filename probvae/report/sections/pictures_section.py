"""Samples, reconstructions and the latent plane of a model, with the posteriors of some data."""

from collections.abc import Iterator

from matplotlib.figure import Figure

from probvae.applications.sampling import sample
from probvae.diagnostics.ledger.gap import GapResult
from probvae.diagnostics.ledger.unsplit import UnsplitLedger
from probvae.inference import posterior_mean, posterior_scale, reconstruct
from probvae.report.figures import latent_plane
from probvae.report.run_figures import NUM_SAMPLES, num_shown, posterior_figure, reconstruction_figure, sample_figure
from probvae.report.sections.base import Drawn, Section, Subject

_NUM_POSTERIORS, _QUICK_POSTERIORS = 6, 3
_GOOD = {1: "the orange line is the blue hill's outline", 2: "the orange line runs along the edge of the middle blue"}


def figures(result: None, subject: Subject) -> Iterator[Drawn]:
    """Samples, reconstructions and latent plane; posteriors, where the gaps are known and z has 1 or 2 dimensions."""
    vae, data, x = subject.vae, subject.data, subject.x
    drawn = sample_figure(sample(vae, NUM_SAMPLES, subject.seed), data, vae.model.likelihood.point_name)
    yield Drawn("samples", drawn, {"what": "" if data.image_shape is None else "; shown is E[x|z], without the noise"})
    first = slice(num_shown(data))
    reconstructed = reconstruct(vae.at(first), x[first]).cpu().numpy()
    yield Drawn("reconstructions", reconstruction_figure(data, reconstructed))
    means, scales = (values(vae, x).cpu().numpy() for values in (posterior_mean, posterior_scale))
    yield Drawn("latent-plane", latent_plane(means, data.labels, scales=scales))
    posteriors = _posteriors(subject)
    if posteriors is not None:
        yield Drawn("posteriors", posteriors, {"good": _GOOD[vae.model.latent_dim]})


def _posteriors(subject: Subject) -> Figure | None:
    gap = subject.results.get("gap")
    if not isinstance(gap, GapResult | UnsplitLedger):
        return None
    num = _QUICK_POSTERIORS if subject.quick else _NUM_POSTERIORS
    return posterior_figure(subject.vae, subject.x, gap, num)


PICTURES = Section(
    name="pictures",
    title="Samples, reconstructions, latent plane",
    question="What does the model make, and where does it put the data?",
    captions={
        "samples": "New data, drawn from the model: z from the prior, then x from p(x|z){what}. How to read it: a good "
        "model's samples could be mistaken for data, and none of the data's kinds is missing.",
        "reconstructions": "Data, and what the model makes of their posterior mean. How to read it: what the two have "
        "in common went through z; what differs the model puts down to noise. A good one keeps what the data are told "
        "apart by.",
        "latent-plane": "The posterior means of the data (colours: labels, where there are some). How to read it: with "
        "a good fit they fill the shaded discs about as the prior does; all of them at the centre: the latent is not "
        "used.",
        "posteriors": "Exact posteriors (blue, on a grid) with the guide's (orange) on top, from the datum with the "
        "smallest gap to the one with the largest. How to read it: an orange line elsewhere than the blue is the "
        "encoder's fault; a dashed one (the best of the family) that cannot follow the blue shape is the family's. A "
        "good one: {good}.",
    },
    figures=figures,
    has_result=False,
)
