"""The exact guide: an honest guide without parameters of its own, which follows its model everywhere."""

import copy
from itertools import pairwise

import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from pyro.optim import Adam
from torch.testing import assert_close

import probvae
from probvae.errors import ConfigError, FloorWarning, NotLinearGaussianError
from probvae.experiments.build import build_vae
from probvae.inference import ExactGuide, bound, exact_log_evidence, exact_posterior, log_weights, plug_in_loss
from probvae.inference.evaluation.variance import expected_squared_error
from probvae.inference.training.probabilistic_pca import num_active_directions, ppca_max_elbo
from probvae.models import (
    GaussianLikelihood,
    LatentModel,
    LinearDecoder,
    LinearGaussianModel,
    MixturePrior,
    MLPDecoder,
    NormalPrior,
    StandardNormalPrior,
)
from tests.support import example_a


def example_vae() -> probvae.VAE:
    model = example_a.model()
    return probvae.VAE(model, ExactGuide(model))


def mixture_vae() -> probvae.VAE:
    model = LinearGaussianModel(example_a.W, example_a.B, example_a.C, prior=MixturePrior(2, 3, "full"))
    return probvae.VAE(model, ExactGuide(model))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", [Trace_ELBO(), RenyiELBO(alpha=0.5, num_particles=3)], ids=["elbo", "renyi"])
def test_one_draw_of_pyros_bounds_is_the_evidence(loss, seed: int) -> None:
    vae = example_vae()
    torch.manual_seed(seed)
    assert -loss.loss(vae.model, vae.guide, example_a.X) == pytest.approx(-8.611317002448297, abs=1e-10)


@pytest.mark.parametrize("make", [example_vae, mixture_vae])
def test_bound_is_the_evidence(make) -> None:
    vae, x = make(), torch.randn(20, 3, dtype=torch.float64)
    expected = exact_log_evidence(vae.model, x).detach()
    assert_close(probvae.elbo(vae, x), expected, rtol=0, atol=1e-10)
    parts = bound(vae, x, num_samples=5)
    assert_close(parts.log_likelihood - parts.kl, expected, rtol=0, atol=1e-10)


def test_parts_of_the_bound() -> None:
    """At draws of one datum; the bound itself has one value for equal rows, whose draws are equal."""
    vae, num = example_vae(), 40_000
    terms = log_weights(vae.model, vae.guide, example_a.X[:1], num)
    parts = bound(vae, example_a.X[:1], num_samples=num)
    kl = terms.log_guide - terms.log_prior
    for draws, part, expected in (
        (terms.log_likelihood, parts.log_likelihood, -3.8722274360499296),
        (kl, parts.kl, 1.1657210326640954),
    ):
        for mean in (draws.mean(), part[0]):
            assert abs(mean - expected) < 5 * draws.std() / num**0.5


def test_plug_in_loss_is_optimistic_by_half_the_trace() -> None:
    vae, x = example_vae(), example_a.X
    deficit = -example_a.LOG_P - plug_in_loss(vae, x)
    assert_close(deficit, torch.full((2,), 0.8599070324530884, dtype=torch.float64), rtol=0, atol=1e-10)


def trainable_model(prior) -> LinearGaussianModel:
    return LinearGaussianModel(example_a.W, example_a.B, 0.4, prior=prior, trainable=True)


def test_gradient_of_one_draw_is_that_of_the_evidence() -> None:
    model = trainable_model(NormalPrior(2, "full").double())
    value = -Trace_ELBO().differentiable_loss(model, ExactGuide(model), example_a.X)
    got = torch.autograd.grad(value, list(model.parameters()))
    expected = torch.autograd.grad(exact_log_evidence(model, example_a.X).sum(), list(model.parameters()))
    assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_detached_gradient_is_that_of_em() -> None:
    model = trainable_model(StandardNormalPrior(2))
    guide, x = ExactGuide(model, detach=True), example_a.X
    assert not guide.distribution(x).mean.requires_grad
    expected = torch.autograd.grad(exact_log_evidence(model, x).sum(), list(model.parameters()))
    draws, copies = [], 20  # of the data: each gradient is a mean over as many draws
    for _ in range(100):
        loss = Trace_ELBO().differentiable_loss(model, guide, x.repeat(copies, 1)) / copies
        draws.append(torch.cat([g.flatten() for g in torch.autograd.grad(-loss, list(model.parameters()))]))
    values, flat = torch.stack(draws), torch.cat([g.flatten() for g in expected])
    assert ((values.mean(0) - flat).abs() < 5 * values.std(0) / 100**0.5).all()
    assert values.std(0).min() > 0.01  # noisy, where the other is not


def test_parameters_are_listed_once() -> None:
    model = trainable_model(StandardNormalPrior(2))
    vae = probvae.VAE(model, ExactGuide(model))
    assert list(vae.guide.parameters()) == []
    assert {name.split(".")[0] for name in vae.state_dict()} == {"model"}
    assert len(list(vae.parameters())) == len(list(model.parameters())) == 3


def test_it_follows_the_model() -> None:
    vae, x = example_vae(), example_a.X
    vae.model.decoder.weight.data *= 2
    assert_close(vae(x).mean, exact_posterior(vae.model, x).mean)
    assert vae.float()(x.float()).mean.dtype == torch.float32


@pytest.mark.parametrize("make", [example_vae, mixture_vae])
def test_a_copy_is_attached_to_the_copied_model(make) -> None:
    vae = make()
    twin = copy.deepcopy(vae)
    assert twin.guide.model is twin.model
    twin.model.decoder.weight.data *= 2
    assert_close(probvae.elbo(twin, example_a.X), exact_log_evidence(twin.model, example_a.X).detach())
    assert_close(probvae.elbo(vae, example_a.X), exact_log_evidence(vae.model, example_a.X).detach())
    assert "model" not in twin.components()["guide"]


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("variance", [0.1, torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)], ids=["one", "each"])
def test_saved_and_loaded(variance, detach: bool, tmp_path) -> None:
    model = LinearGaussianModel(example_a.W, example_a.B, variance, prior=MixturePrior(2, 3, "full"))
    vae = probvae.VAE(model, ExactGuide(model, detach=detach))
    vae.save(tmp_path / "vae.safetensors")
    loaded = probvae.load(tmp_path / "vae.safetensors")
    assert loaded.guide.model is loaded.model
    assert loaded.guide.detach is detach
    assert loaded.components() == vae.components()
    assert vae.components()["guide"] == {"family": "guide", "name": "exact", "detach": detach}
    z = torch.randn(2, 2, dtype=torch.float64)
    assert torch.equal(loaded(example_a.X).log_prob(z), vae(example_a.X).log_prob(z))


def test_a_guide_of_another_model_cannot_be_saved(tmp_path) -> None:
    vae = probvae.VAE(example_a.model(), ExactGuide(example_a.model()))
    with pytest.raises(ConfigError, match="ExactGuide: its argument 'model'"):
        vae.save(tmp_path / "vae.safetensors")


def test_a_model_without_closed_form_is_refused() -> None:
    with pytest.raises(NotLinearGaussianError, match="decoder MLPDecoder"):
        ExactGuide(LatentModel(StandardNormalPrior(2), MLPDecoder(2, 3), GaussianLikelihood(3)))


def test_recipes_name_it(tmp_path) -> None:
    component = {"name": "linear"}
    recipe = {
        "model": {
            "latent_dim": 2,
            "prior": {"name": "mixture"},
            "decoder": component,
            "likelihood": {"name": "gaussian"},
        },
        "inference": {"encoder": component, "guide": {"name": "exact"}, "objective": {"name": "elbo"}},
        "training": {"seed": 0},
    }
    vae = build_vae(recipe, data_dim=3, data_variance=1.0)
    assert vae.guide.model is vae.model
    recipe["model"]["decoder"] = {"name": "mlp"}
    with pytest.raises(NotLinearGaussianError, match="decoder MLPDecoder"):
        build_vae(recipe, data_dim=3, data_variance=1.0)


def test_optimal_variance_under_a_mixture() -> None:
    vae, x = mixture_vae(), torch.randn(4, 3, dtype=torch.float64)
    z = vae(x).sample((100_000,))
    errors = (x - vae.model.decoder(z)).square().sum(-1)
    exact = expected_squared_error(vae.model, vae(x), x)
    assert ((errors.mean(0) - exact).abs() < 5 * errors.std(0) / 100_000**0.5).all()


def test_svi_trains_the_model_through_it() -> None:
    model = trainable_model(StandardNormalPrior(2))
    guide, x = ExactGuide(model), torch.randn(50, 3, dtype=torch.float64)
    svi = SVI(model, guide, Adam({"lr": 1e-2}), Trace_ELBO())
    before = exact_log_evidence(model, x).sum().item()
    losses = [svi.step(x) for _ in range(50)]
    assert losses[0] == pytest.approx(-before, abs=1e-8)
    assert all(later < earlier for earlier, later in pairwise(losses[:20]))


@pytest.mark.slow
def test_fit_reaches_probabilistic_pca(double: None) -> None:
    """Maximum likelihood by gradients of an ELBO that is the evidence: the optimum of Tipping and Bishop."""
    x = torch.randn(256, 2) @ torch.tensor([[1.5, 0.5, -1.0, 0.3], [0.2, 1.0, 0.4, -0.8]]) + 0.4 * torch.randn(256, 4)
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 4), GaussianLikelihood(4))
    vae = probvae.VAE(model, ExactGuide(model))
    probvae.fit(vae, x, epochs=400, batch_size=256, learning_rate=0.03, schedule="cosine", progress=False, device="cpu")
    best = probvae.fit_probabilistic_pca(x, 2)
    fitted, optimum = (exact_log_evidence(v.model, x).mean().item() for v in (vae, best))
    assert optimum - 1e-4 < fitted < optimum + 1e-10


@pytest.mark.parametrize(
    ("c", "active"),
    [
        pytest.param(0.5, 2, marks=pytest.mark.slow),
        (2.0, 1),
        pytest.param(5.0, 0, marks=pytest.mark.slow),
    ],
)
def test_fit_turns_off_what_a_fixed_variance_leaves_no_room_for(c: float, active: int, double: None) -> None:
    x = torch.randn(256, 6) * torch.tensor([4.0, 1.5, 0.16, 0.16, 0.16, 0.16]).sqrt()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0))
    assert num_active_directions(eigenvalues, c) == active
    model = LatentModel(StandardNormalPrior(6), LinearDecoder(6, 6), GaussianLikelihood(6, variance=c))
    vae = probvae.VAE(model, ExactGuide(model))
    probvae.fit(vae, x, epochs=300, batch_size=256, learning_rate=0.03, schedule="cosine", progress=False, device="cpu")
    fitted = exact_log_evidence(model, x).mean().item()
    assert fitted == pytest.approx(ppca_max_elbo(eigenvalues, c).item(), abs=0.02)
    assert (torch.linalg.svdvals(model.decoder.weight) > 0.1).sum() == active


@pytest.mark.slow
def test_degenerate_data_end_on_the_floor_with_a_warning(double: None) -> None:
    x = torch.randn(128, 3) @ torch.randn(3, 8)
    model = LatentModel(StandardNormalPrior(3), LinearDecoder(3, 8), GaussianLikelihood(8, minimum_variance=1e-2))
    vae = probvae.VAE(model, ExactGuide(model))
    with pytest.warns(FloorWarning, match="no finite maximum"):
        probvae.fit(
            vae, x, epochs=400, batch_size=128, learning_rate=0.05, schedule="constant", progress=False, device="cpu"
        )
