"""Guides that are not amortised, or only half: their members against closed forms."""

import copy
from pathlib import Path

import pytest
import torch
from pyro import distributions as dist
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError, ShapeError, UnknownNameError
from probvae.foundation.row_noise import RowNoise, row_keys
from probvae.inference import (
    DiagonalGuide,
    FreeGuide,
    FullCovarianceGuide,
    LinearEncoder,
    SemiAmortizedGuide,
    diagonal_gap,
    elbo,
    exact_log_evidence,
    exact_posterior,
)
from probvae.inference.densities.moments import mean_and_variance
from probvae.inference.evaluation.refine import refine
from probvae.inference.guides.families import MemberFamily, NormalFamily
from probvae.inference.objectives import STLObjective
from tests.support import example_a


def test_free_guide_knows_its_data_in_any_order() -> None:
    x = torch.randn(50, 3)
    guide = FreeGuide(latent_dim=2, data_dim=3, num_data=50, covariance="full").start_from(x)
    with torch.no_grad():
        guide.parameters_of_data.copy_(torch.randn(50, 5))
    order = torch.randperm(50)[:20]
    assert torch.equal(guide.distribution(x[order]).mean, 10 * guide.parameters_of_data[order, :2])


def test_free_guide_takes_equal_data_for_one() -> None:
    x = torch.cat([torch.zeros(2, 3), -torch.zeros(1, 3), torch.ones(1, 3)])
    guide = FreeGuide(2, 3, 4).start_from(x)
    with torch.no_grad():
        guide.parameters_of_data.copy_(torch.randn(4, 4))
    mean = guide.distribution(x).mean
    assert torch.equal(mean[0], mean[1])
    assert torch.equal(mean[0], mean[2])
    assert not torch.equal(mean[0], mean[3])


def test_free_guide_refuses_other_data() -> None:
    guide = FreeGuide(2, 3, 4).start_from(torch.eye(4, 3))
    with pytest.raises(ArgumentError, match=r"1 of these 2 rows are not among them \(first: row 1\)"):
        guide.distribution(torch.stack([torch.eye(4, 3)[0], torch.full((3,), 0.5)]))
    with pytest.raises(ShapeError, match="expected the 4 rows"):
        guide.start_from(torch.zeros(5, 3))


def test_free_guide_keeps_its_data_through_copies_and_files(tmp_path: Path) -> None:
    x = torch.randn(6, 3)
    guide = FreeGuide(2, 3, 6).start_from(x)
    vae = probvae.VAE(example_a.model().float(), guide)
    assert guide.distribution(x).mean.shape == (6, 2)  # the keys are remembered now
    doubled = copy.deepcopy(vae).double()
    assert doubled.guide.distribution(x.double()).mean.dtype == torch.float64
    vae.save(tmp_path / "free.safetensors")
    again = probvae.load(tmp_path / "free.safetensors")
    assert torch.equal(again.guide.distribution(x[2:]).mean, guide.distribution(x[2:]).mean)
    guide.load_state_dict({**guide.state_dict(), "x": x + 1})
    assert guide.distribution(x + 1).mean.shape == (6, 2)


@pytest.mark.slow
@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_free_guide_reaches_the_best_member(covariance: str) -> None:
    """Fitted to example A's model, which stays as it is: no amortisation gap is left."""
    model = example_a.model().requires_grad_(False)
    x = model(num_data=64).detach()
    vae = probvae.VAE(model, FreeGuide(2, 3, 64, covariance).double().start_from(x))
    options = {"epochs": 600, "batch_size": 64, "learning_rate": 0.003, "schedule": "cosine"}
    probvae.fit(vae, x, objective=STLObjective(num_particles=8), progress=False, **options)
    posterior = exact_posterior(model, x)
    gap = diagonal_gap(posterior.precision_matrix[0]) if covariance == "diagonal" else torch.zeros(())
    total = exact_log_evidence(model, x) - elbo(vae, x, 2000)
    assert total.mean().item() == pytest.approx(gap.item(), abs=2e-3)
    assert_close(vae(x).mean, posterior.mean, rtol=0, atol=0.02)


def test_members_search_agrees_with_the_normals_own() -> None:
    """The same family through both searches: a diagonal normal as a normal, and as any LocalGuide."""
    vae = probvae.VAE(example_a.model(), DiagonalGuide(LinearEncoder(3), 2).double())
    x = vae.model(num_data=30).detach()

    class Hidden(DiagonalGuide):
        """Its normals are not seen to be normals."""

        def member(self, parameters: torch.Tensor) -> torch.distributions.Distribution:
            q = super().member(parameters)
            return dist.TransformedDistribution(q, [torch.distributions.AffineTransform(0.0, 1.0, 1)])

    hidden = Hidden(LinearEncoder(3), 2).double()
    hidden.load_state_dict(vae.guide.state_dict())
    result = refine(probvae.VAE(vae.model, hidden), x)
    q = result.guide.distribution(x).base_dist
    expected = 1 / example_a.precision().diagonal()
    gap = diagonal_gap(example_a.precision())
    total = exact_log_evidence(vae.model, x) - elbo(probvae.VAE(vae.model, result.guide), x, 4000)
    assert result.converged.all()
    assert total.mean().item() == pytest.approx(gap.item(), abs=3e-3)
    assert_close(q.variance.mean(0), expected, rtol=0.1, atol=0)


def test_scale_of_a_member_is_its_standard_deviation() -> None:
    guide = DiagonalGuide(LinearEncoder(3), 2).double()
    parameters = torch.tensor([0.3, -0.2, -3.0, -1.0], dtype=torch.float64).expand(1, 400, 4)
    noise = RowNoise(torch.arange(400), seed=0, row_dim=2)  # keys of 400 different data
    _, scale = MemberFamily(example_a.model(), guide).prepared((parameters,), example_a.X[:1].expand(400, 3), noise)
    information = 1 / scale.square()
    error = information.std(1) / 20
    expected = 1 / guide.member(parameters).variance[0, 0]  # Fisher information of a normal's mean
    assert ((information.mean(1)[0, :2] - expected).abs() < 4 * error[0, :2]).all()
    assert (scale[..., 2:] <= 1).all()


def test_ratio_of_the_normals_is_the_evidence_at_the_posterior() -> None:
    posterior = exact_posterior(example_a.model(), example_a.X)
    state = (posterior.loc.detach()[None], posterior.scale_tril.detach()[None])
    family = NormalFamily(example_a.model(), 2, True, like=posterior.loc)
    noise = RowNoise(row_keys(example_a.X), seed=0, row_dim=2)
    for part in family.fixed_log_ratios(state, example_a.X, noise):
        assert_close(part, example_a.LOG_P.expand_as(part), rtol=0, atol=1e-10)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_semi_amortised_steps_close_the_amortisation_gap(covariance: str) -> None:
    model = example_a.model()
    x = model(num_data=40).detach()
    gaps = []
    for num_steps in (1, 10, 60):
        torch.manual_seed(0)
        guide = SemiAmortizedGuide(LinearEncoder(3), 2, model, covariance, num_steps=num_steps).double()
        gaps.append((exact_log_evidence(model, x) - elbo(probvae.VAE(model, guide), x, 500)).mean().item())
    best = diagonal_gap(example_a.precision()).item() if covariance == "diagonal" else 0.0
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] == pytest.approx(best, abs=0.02)


def test_semi_amortised_encoder_learns() -> None:
    """Its gradient is the ELBO's at the improved parameters."""
    model = example_a.model()
    guide = SemiAmortizedGuide(LinearEncoder(3), 2, model, num_steps=3).double()
    q = guide.distribution(example_a.X)
    (direct,) = torch.autograd.grad(q.mean.sum(), guide.start.loc.bias)
    assert_close(direct, torch.full((2,), 2.0, dtype=torch.float64))


def test_semi_amortised_saved_with_its_model(tmp_path: Path) -> None:
    model = example_a.model().float()
    vae = probvae.VAE(model, SemiAmortizedGuide(LinearEncoder(3), 2, model, "full", num_steps=4))
    x = torch.randn(5, 3)
    vae.save(tmp_path / "semi.safetensors")
    again = probvae.load(tmp_path / "semi.safetensors")
    assert again.guide._model[0] is again.model
    assert torch.equal(again(x).mean, vae(x).mean)


def test_semi_amortised_covariance() -> None:
    with pytest.raises(UnknownNameError, match="unknown covariance 'flow'"):
        SemiAmortizedGuide(LinearEncoder(3), 2, example_a.model(), "flow")


def test_full_guide_alone_gives_the_same_as_the_family() -> None:
    guide = FullCovarianceGuide(LinearEncoder(3), 2).double()
    x = torch.randn(7, 3, dtype=torch.float64)
    assert_close(guide.member(guide.local_parameters(x)).scale_tril, guide.distribution(x).scale_tril)


def test_moments_without_a_closed_form() -> None:
    base = torch.distributions.Independent(
        torch.distributions.Normal(torch.tensor([0.5, -1.0]), torch.tensor([0.4, 0.2])), 1
    )
    q = torch.distributions.TransformedDistribution(base, [torch.distributions.ExpTransform()])
    state = torch.get_rng_state()
    mean, variance = mean_and_variance(q)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(mean, mean_and_variance(q)[0])
    m, s2 = torch.tensor([0.5, -1.0]), torch.tensor([0.16, 0.04])
    expected_variance = (s2.exp() - 1) * (2 * m + s2).exp()
    assert ((mean - (m + s2 / 2).exp()).abs() < 4 * (expected_variance / 1000).sqrt()).all()
    assert_close(variance, expected_variance, rtol=0.3, atol=0)
