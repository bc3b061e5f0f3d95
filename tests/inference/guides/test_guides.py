"""Contract and oracle of encoders and guides."""

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from probvae import testing
from probvae.errors import ArgumentError, ShapeError
from probvae.inference import DiagonalGuide, Encoder, FullCovarianceGuide, Guide, LinearEncoder, MLPEncoder, analytic_kl
from probvae.inference.guides.base import bounded_scale

EXACT = {"rtol": 1e-12, "atol": 1e-12}
DTYPES = (torch.float32, torch.float64)


def randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.1 + 0.5 * torch.randn_like(parameter))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(Guide.registry))
def test_guide_contract(name: str, dtype: torch.dtype) -> None:
    testing.check_guide(Guide.registry[name].example().to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(Encoder.registry))
def test_encoder_contract(name: str, dtype: torch.dtype) -> None:
    testing.check_encoder(Encoder.registry[name].example().to(dtype))


def by_hand(guide: Guide, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and scale of a guide, from its heads' weights."""
    features = guide.encoder(x)
    mean = features @ guide.loc.weight.T + guide.loc.bias
    raw = features @ guide.log_scale.weight.T + guide.log_scale.bias
    return mean, torch.exp(10 * torch.tanh(raw / 10))


def test_diagonal_guide_is_the_normal_of_its_heads(double: None) -> None:
    guide = DiagonalGuide(MLPEncoder(4, hidden=(5,)), latent_dim=3)
    randomise(guide)
    x, z = torch.randn(6, 4), torch.randn(6, 3)
    mean, scale = by_hand(guide, x)
    expected = (-0.5 * ((z - mean) / scale) ** 2 - scale.log() - 0.5 * torch.log(torch.tensor(2 * torch.pi))).sum(-1)
    assert_close(guide.distribution(x).log_prob(z), expected, **EXACT)


def test_full_guide_is_the_normal_of_its_heads(double: None) -> None:
    guide = FullCovarianceGuide(MLPEncoder(4, hidden=(5,)), latent_dim=3)
    randomise(guide)
    x = torch.randn(6, 4)
    mean, scale = by_hand(guide, x)
    t10, t20, t21 = (guide.encoder(x) @ guide.dependence.weight.T + guide.dependence.bias).unbind(-1)
    one, zero = torch.ones(6), torch.zeros(6)
    unit = torch.stack([one, zero, zero, t10, one, zero, t20, t21, one], dim=-1).reshape(6, 3, 3)
    factor = torch.diag_embed(scale) @ unit
    q = guide.distribution(x)
    assert_close(q.mean, mean, **EXACT)
    assert_close(q.covariance_matrix, factor @ factor.mT, **EXACT)


def test_full_guide_in_one_dimension(double: None) -> None:
    guide = FullCovarianceGuide(LinearEncoder(4), latent_dim=1)
    randomise(guide)
    x, z = torch.randn(6, 4), torch.randn(6, 1)
    mean, scale = by_hand(guide, x)
    assert_close(guide.distribution(x).log_prob(z), Normal(mean, scale).log_prob(z).sum(-1), **EXACT)


def test_scale_is_bounded_and_smooth() -> None:
    raw = torch.tensor([-1e6, -3.0, 0.0, 3.0, 1e6], dtype=torch.float64, requires_grad=True)
    scale = bounded_scale(raw)
    assert scale.min() >= torch.tensor(-10.0, dtype=torch.float64).exp()
    assert scale.max() <= torch.tensor(10.0, dtype=torch.float64).exp() + 1e-9
    (slope,) = torch.autograd.grad(scale[2], raw)
    assert slope[2].item() == pytest.approx(1.0)  # exp(raw) near zero


def test_covariance_begins_as_the_priors() -> None:
    for guide in (DiagonalGuide(MLPEncoder(4), 3), FullCovarianceGuide(MLPEncoder(4), 3)):
        assert_close(guide.distribution(torch.randn(5, 4)).variance, torch.ones(5, 3))


def test_trunk_is_shared() -> None:
    guide = DiagonalGuide(MLPEncoder(784, hidden=(400,)), latent_dim=20)
    assert sum(parameter.numel() for parameter in guide.parameters()) == 784 * 400 + 400 + 400 * 40 + 40 == 330_040


def test_encoder_of_the_users_needs_its_width() -> None:
    with pytest.raises(ShapeError, match="num_features"):
        DiagonalGuide(torch.nn.Linear(4, 5), latent_dim=2)
    guide = DiagonalGuide(torch.nn.Linear(4, 5), latent_dim=2, num_features=5)
    assert guide.distribution(torch.zeros(3, 4)).batch_shape == (3,)


def test_data_of_another_width_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"x: expected trailing shape \(4,\), got \(3, 5\)"):
        DiagonalGuide(LinearEncoder(4), 2).distribution(torch.zeros(3, 5))


def random_full(batch: int, d: int) -> MultivariateNormal:
    factor = torch.randn(batch, d, d, dtype=torch.float64).tril(-1) + torch.diag_embed(
        torch.rand(batch, d, dtype=torch.float64) + 0.2
    )
    return MultivariateNormal(torch.randn(batch, d, dtype=torch.float64), scale_tril=factor)


def test_kl_of_full_from_independent_normal_matches_torch() -> None:
    q = random_full(6, 4)
    loc, scale = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.3
    ours = kl_divergence(q, Independent(Normal(loc, scale), 1).expand((6,)))
    assert_close(ours, kl_divergence(q, MultivariateNormal(loc, torch.diag(scale**2))), **EXACT)


def test_diagonal_kl_is_its_special_case() -> None:
    mean, scale = torch.randn(6, 4, dtype=torch.float64), torch.rand(6, 4, dtype=torch.float64) + 0.2
    prior = Independent(Normal(torch.zeros(4).double(), torch.full((4,), 1.7).double()), 1).expand((6,))
    full = kl_divergence(MultivariateNormal(mean, scale_tril=torch.diag_embed(scale)), prior)
    assert_close(full, kl_divergence(Independent(Normal(mean, scale), 1), prior), **EXACT)


def test_kl_without_closed_form_is_an_error() -> None:
    laplace = Independent(torch.distributions.Laplace(torch.zeros(4).double(), torch.ones(4).double()), 1)
    with pytest.raises(ArgumentError, match=r"MultivariateNormal to Independent\(Laplace\).*objective='elbo'"):
        analytic_kl(random_full(6, 4), laplace)
