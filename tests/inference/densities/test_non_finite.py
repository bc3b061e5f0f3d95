"""Finite data that overflow in the networks: one error of our own, or numbers; never torch's."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import probvae
from probvae.diagnostics import posterior_gap
from probvae.errors import ArgumentError, NonFiniteError
from probvae.inference.densities.non_finite import raise_as_non_finite
from probvae.inference.evaluation.bounds import elbo, plug_in_loss, posterior_mean, posterior_scale, reconstruct
from probvae.inference.evidence.importance_sampling import importance_log_evidence
from probvae.inference.evidence.log_evidence import log_evidence
from probvae.inference.guides import DiagonalGuide, FullCovarianceGuide
from probvae.models import GaussianLikelihood, LatentModel, MLPDecoder, StandardNormalPrior

LARGE = 3e38
CALLS: dict[str, Callable[[probvae.VAE, Tensor], object]] = {
    "elbo": elbo,
    "many draws": lambda vae, x: elbo(vae, x, 20),
    "plug-in loss": plug_in_loss,
    "mean": posterior_mean,
    "scale": posterior_scale,
    "reconstruct": reconstruct,
    "annealed": lambda vae, x: log_evidence(vae, x, "annealed"),
    "importance": importance_log_evidence,
    "gap": lambda vae, x: posterior_gap(vae, x, truth="annealed"),
}


def make(guide: type) -> probvae.VAE:
    torch.manual_seed(1)
    encoder = probvae.inference.MLPEncoder(3, (8, 8), activation="relu")
    return probvae.VAE(
        LatentModel(StandardNormalPrior(2), MLPDecoder(2, 3, (8,)), GaussianLikelihood(3)),
        guide(encoder, 2),
    )


def in_its_dtype(call: str, vae: probvae.VAE, x: torch.Tensor) -> tuple[probvae.VAE, torch.Tensor]:
    """Chains and the ledger are computed in float64, where only larger numbers overflow."""
    return (vae.double(), x.double() * 1e260) if call in ("gap", "annealed") else (vae, x)


@pytest.mark.parametrize("guide", [DiagonalGuide, FullCovarianceGuide])
@pytest.mark.parametrize("call", CALLS)
def test_an_overflow_is_told_as_one(call: str, guide: type) -> None:
    vae, x = in_its_dtype(call, make(guide), torch.tensor([[LARGE, -LARGE, LARGE], [1.0, 2.0, 3.0]]))
    with pytest.raises(NonFiniteError, match=r"^x: expected data whose numbers stay finite") as told:
        CALLS[call](vae, x)
    assert "scaling='standardize'" in str(told.value)
    assert "\n" not in str(told.value)
    assert not isinstance(told.value, ArgumentError)


@pytest.mark.parametrize("call", ["elbo", "many draws", "importance", "gap"])
def test_an_overflow_in_any_row_is_told_as_one(call: str) -> None:
    """The memory of a draw is counted at the first rows; the overflow may be in any."""
    x = torch.zeros(5, 3)
    x[3] = torch.tensor([LARGE, -LARGE, LARGE])
    vae, x = in_its_dtype(call, make(DiagonalGuide), x)
    with pytest.raises(NonFiniteError, match=r"^x: expected data whose numbers stay finite"):
        CALLS[call](vae, x)


def test_a_guide_that_overflows_does_not_hinder_quadrature() -> None:
    vae, x = make(DiagonalGuide).double(), torch.randn(4, 3, dtype=torch.float64)
    expected = log_evidence(vae, x, "quadrature").value
    with torch.no_grad():
        for parameter in vae.guide.parameters():
            parameter.fill_(1e300)
    with pytest.raises(NonFiniteError):
        elbo(vae, x)
    torch.testing.assert_close(log_evidence(vae, x, "quadrature").value, expected, rtol=0, atol=1e-4)


def test_a_diagnosis_says_what_could_not_be_computed() -> None:
    x = torch.tensor([[LARGE, -LARGE, LARGE], [1.0, 2.0, 3.0]])
    diagnosis = probvae.diagnose(make(DiagonalGuide), x, quick=True)
    assert any("overflow" in str(section.summary()) for section in diagnosis.sections.values())
    assert diagnosis.status != "ok"


def test_other_errors_of_values_are_left_alone() -> None:
    """A decoder of the user's may raise one of its own."""
    with pytest.raises(ValueError, match="mine") as told, raise_as_non_finite():
        raise ValueError("mine")
    assert type(told.value) is ValueError


def test_a_matrix_that_is_not_positive_definite_is_an_overflow() -> None:
    with pytest.raises(NonFiniteError, match="cholesky"), raise_as_non_finite():
        torch.linalg.cholesky(torch.full((2, 2), math.nan))
