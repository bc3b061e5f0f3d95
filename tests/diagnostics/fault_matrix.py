"""The fault matrix: exact posteriors with one thing wrong, and which verdicts say so.

``CASES`` maps each fault to a function of the repetition's seed, which gives the VAE and data for it. Faults of the
guide have data from their own model; faults of the model have an exact guide, and data from another model.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

import probvae
from probvae.diagnostics.diagnose import diagnose
from probvae.inference import ExactGuide
from probvae.models import GaussianLikelihood, LatentModel, NormalPrior, StudentTLikelihood
from tests.diagnostics.faults import bimodal_vae, correlated_vae, faulty, folded_vae
from tests.support import example_a
from tests.support.vaes import exact_guide_vae

NUM_DATA = 600
# simulated pairs: calibration costs next to nothing on these models
NUM_SIMULATIONS = 2000
# apart from the seeds of the diagnostics, which are the repetition's own
_DATA_SEED = 1_000_000

Case = Callable[[int], tuple[probvae.VAE, Tensor]]


class Count(NamedTuple):
    """How often each verdict was a ``fail`` and not ok, and how often any was, in ``num`` repetitions."""

    num: int
    fails: Counter[str]
    alarms: Counter[str]
    any_fail: int
    any_alarm: int


def of_guide(base: Callable[[], probvae.VAE], fault: str | None) -> Case:
    """Data from the model itself; the guide has the fault (None: it is exact)."""

    def case(seed: int) -> tuple[probvae.VAE, Tensor]:
        vae = base()
        x = probvae.sample(vae, NUM_DATA, seed=_DATA_SEED + seed).x
        return (vae if fault is None else faulty(vae, fault)), x

    return case


def of_model(truth: Callable[[], LatentModel]) -> Case:
    """The exact posterior of example A, and data from another model."""

    def case(seed: int) -> tuple[probvae.VAE, Tensor]:
        model = truth()
        data = probvae.sample(probvae.VAE(model, ExactGuide(example_a.model())), NUM_DATA, seed=_DATA_SEED + seed)
        return exact_guide_vae(), data.x

    return case


def with_variance(factor: float) -> LatentModel:
    """Example A with another c."""
    model = example_a.model()
    return LatentModel(model.prior, model.decoder, GaussianLikelihood(3, variance=factor * example_a.C)).double()


def with_wide_prior() -> LatentModel:
    """Example A with a prior of standard deviation 1.5."""
    model, prior = example_a.model(), NormalPrior(2)
    torch.nn.init.constant_(prior.log_scale, torch.tensor(1.5).log().item())
    return LatentModel(prior, model.decoder, model.likelihood).double()


def with_heavy_tails() -> LatentModel:
    """Example A with noise from Student's t with three degrees of freedom, of the same variance."""
    model = example_a.model()
    likelihood = StudentTLikelihood(3, degrees=3.0, scale=(example_a.C / 3) ** 0.5)
    return LatentModel(model.prior, model.decoder, likelihood).double()


CASES: dict[str, Case] = {
    "mean + 0.3 sd": of_guide(exact_guide_vae, "mean + 0.3 sd"),
    "mean + 1 sd": of_guide(exact_guide_vae, "mean + 1 sd"),
    "sd x 0.7": of_guide(exact_guide_vae, "sd x 0.7"),
    "sd x 1.4": of_guide(exact_guide_vae, "sd x 1.4"),
    "no correlation (rho = 0.8)": of_guide(correlated_vae, "no correlation"),
    "one of two modes dropped": of_guide(bimodal_vae, "one mode dropped"),
    "one of two modes dropped, f(z) = abs(z)": of_guide(lambda: folded_vae(0.01), "one mode dropped"),
    "guide = prior": of_guide(exact_guide_vae, "prior"),
    "one latent collapsed": of_guide(exact_guide_vae, "one latent collapsed"),
    "encoder shuffled": of_guide(exact_guide_vae, "shuffled"),
    "c of the data twice the model's": of_model(lambda: with_variance(2.0)),
    "c of the data half the model's": of_model(lambda: with_variance(0.5)),
    "prior of the data 1.5 times as wide": of_model(with_wide_prior),
    "heavy tails (t, 3 degrees) as Gaussian": of_model(with_heavy_tails),
}
NO_FAULT: tuple[Case, ...] = (
    of_guide(exact_guide_vae, None),
    of_guide(correlated_vae, None),
    of_guide(bimodal_vae, None),
    of_guide(folded_vae, None),
)


def count(cases: Iterable[tuple[Case, int]]) -> Count:
    """Diagnose each case with its seed, and count."""
    fails, alarms, num, any_fail, any_alarm = Counter[str](), Counter[str](), 0, 0, 0
    for case, seed in cases:
        vae, x = case(seed)
        verdicts = diagnose(vae, x, num_simulations=NUM_SIMULATIONS, seed=seed).verdicts
        failed = {verdict.name for verdict in verdicts if verdict.status == "fail"}
        alarmed = failed | {verdict.name for verdict in verdicts if verdict.status == "warn"}
        fails.update(failed)
        alarms.update(alarmed)
        num, any_fail, any_alarm = num + 1, any_fail + bool(failed), any_alarm + bool(alarmed)
    return Count(num, fails, alarms, any_fail, any_alarm)
