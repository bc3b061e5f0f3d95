"""The gap of a guide whose family is not known."""

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

import probvae
from probvae.diagnostics.diagnose import diagnose
from probvae.diagnostics.ledger.unsplit import UnsplitLedger, total_gap
from probvae.inference import DiagonalGuide
from probvae.inference.evaluation.refine import not_refinable
from tests.support import example_a
from tests.support.vaes import best_diagonal_vae, exact_vae


class Nameless(DiagonalGuide):
    """A mixture of the normal with itself: the same posterior, of a kind that is not searched."""

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        normal = super().distribution(x)
        both = dist.Normal(*(part.unsqueeze(1).expand(-1, 2, -1) for part in (normal.mean, normal.stddev))).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(len(x), 2, dtype=x.dtype)), both)


def nameless_vae() -> probvae.VAE:
    vae = best_diagonal_vae()
    guide = Nameless(vae.guide.encoder, 2).double()
    guide.load_state_dict(vae.guide.state_dict())
    return probvae.VAE(vae.model, guide)


def test_total_is_that_of_the_ledger() -> None:
    result = total_gap(nameless_vae(), example_a.X, "no family", num_samples=40_000, seed=3)
    error = result.total.standard_error
    assert ((result.total.value - 0.04580320226440815).abs() < 4 * error).all()
    assert error.max() < 2e-3
    exact = total_gap(exact_vae(), example_a.X, "no family")
    assert exact.total.value.abs().max() < 1e-10


def test_diagnose_takes_the_total_and_says_why_it_is_not_split() -> None:
    vae = nameless_vae()
    assert not_refinable(best_diagonal_vae(), example_a.X) is None
    reason = not_refinable(vae, example_a.X)
    assert reason is not None
    diagnosis = diagnose(vae, probvae.sample(vae, 30).x, quick=True)
    assert isinstance(diagnosis.sections["gap"], UnsplitLedger)
    verdicts = {verdict.name: verdict for verdict in diagnosis.verdicts}
    assert verdicts["gap/split"].status == "not computed"
    assert "Nameless" in verdicts["gap/split"].message
    assert verdicts["gap/total"].value == pytest.approx(0.0458, abs=0.02)
