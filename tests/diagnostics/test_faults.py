"""The faults are what they say, and nothing else; without them the posteriors are exact."""

import pytest
import torch
from torch.testing import assert_close

import probvae
from probvae.inference.evaluation.simulation import simulate_pairs
from tests.diagnostics.faults import FAULTS, bimodal_vae, correlated_vae, faulty, folded_vae
from tests.support.vaes import exact_guide_vae

EXACT = {"A": exact_guide_vae, "correlated": correlated_vae, "bimodal": bimodal_vae, "folded": folded_vae}


def log_weights(vae: probvae.VAE, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return vae.model.log_joint(x, z) - vae.guide.distribution(x).log_prob(z)


@pytest.mark.parametrize("name", EXACT)
def test_guides_without_fault_are_exact(name: str) -> None:
    vae = EXACT[name]()
    x = simulate_pairs(vae, 5).x
    values = log_weights(vae, x, vae.guide.distribution(x).sample(torch.Size((7,))))
    assert_close(values, values[:1].expand_as(values), rtol=0, atol=1e-9)


def test_moments_of_the_folded_posterior() -> None:
    q = folded_vae(0.3).guide.distribution(torch.tensor([[0.4], [-0.2]], dtype=torch.float64))
    for p in (q, type(q)(q.loc, q.scale, one_mode=True)):
        z = p.sample(torch.Size((100_000,)))
        assert ((z.mean(0) - p.mean).abs() < 5 * (p.variance / len(z)).sqrt()).all()
        squares = (z - p.mean).square()
        assert ((squares.mean(0) - p.variance).abs() < 5 * squares.std(0) / len(z) ** 0.5).all()


def test_correlated_posterior() -> None:
    q = correlated_vae(0.8).guide.distribution(torch.zeros(1, 2, dtype=torch.float64))
    assert_close(q.covariance_matrix[0], torch.tensor([[0.25, 0.2], [0.2, 0.25]], dtype=torch.float64))
    marginal = faulty(correlated_vae(0.8), "no correlation").guide.distribution(torch.zeros(1, 2, dtype=torch.float64))
    assert_close(marginal.covariance_matrix[0], 0.25 * torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize(("name", "shift", "factor"), [("mean + 0.3 sd", 0.3, 1), ("sd x 0.7", 0, 0.7)])
@pytest.mark.parametrize("make", [correlated_vae, bimodal_vae])
def test_affine_faults(make, name: str, shift: float, factor: float) -> None:
    vae = make()
    x = simulate_pairs(vae, 3).x
    p, q = vae.guide.distribution(x), faulty(vae, name).guide.distribution(x)
    assert_close(q.mean, p.mean + shift * p.variance.sqrt())
    assert_close(q.variance, factor**2 * p.variance)


def test_every_fault_is_a_distribution() -> None:
    for name in FAULTS:
        vae = faulty(bimodal_vae() if "mode" in name else correlated_vae(), name)
        x = simulate_pairs(vae, 4).x
        q = vae.guide.distribution(x)
        assert (q.batch_shape, q.event_shape) == ((4,), (2,))
        assert q.log_prob(q.sample()).isfinite().all()
