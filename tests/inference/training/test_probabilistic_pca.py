"""Probabilistic PCA in closed form, and everything that is known at its optimum."""

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from torch import Tensor
from torch.testing import assert_close

import probvae
from probvae.errors import ArgumentError, DataError
from probvae.inference import (
    best_diagonal_guide,
    bound,
    diagonal_gap,
    exact_log_evidence,
    optimal_variance,
    posterior_moments,
    posterior_precision,
)
from probvae.inference.training.probabilistic_pca import fit_probabilistic_pca, num_active_directions, ppca_max_elbo
from probvae.models import LinearGaussianModel

# The synthetic set of known-answers section 1.5: its two large eigenvalues, the mean of the others, N and D
LARGE, SIGMA2, N, WIDTH = (4.96087524, 1.10898836), 0.16164840, 500, 6
MAX_LOG_LIKELIHOOD = -5.721483102413154


def data_with(eigenvalues: Tensor, num: int = N, seed: int = 0) -> Tensor:
    """(num, D) data whose sample covariance over N has exactly these eigenvalues, in a random basis, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(num, len(eigenvalues), dtype=torch.float64, generator=generator)
    left = torch.linalg.svd(raw - raw.mean(0), full_matrices=False)[0]
    basis = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), dtype=torch.float64, generator=generator)).Q
    return math.sqrt(num) * (left * eigenvalues.sqrt()) @ basis.T + torch.arange(len(eigenvalues)).double()


def synthetic_eigenvalues() -> Tensor:
    """The known two, and four whose sum and product are those of the known optima (at c = 0.1 all six are active)."""
    log_product = -2 * (-5.704141498 + WIDTH / 2 * math.log(2 * math.pi)) - WIDTH - math.log(LARGE[0] * LARGE[1])
    spread = math.sqrt(SIGMA2**2 - math.exp(log_product / 2))
    return torch.tensor([*LARGE, *[SIGMA2 + spread] * 2, *[SIGMA2 - spread] * 2], dtype=torch.float64)


def digits() -> Tensor:
    return torch.from_numpy(load_digits().data / 16)


def mean_log_evidence(vae: probvae.VAE, x: Tensor) -> float:
    return exact_log_evidence(vae.model, x).mean().item()


@pytest.mark.parametrize(
    ("d", "variance", "log_likelihood"),
    [(2, 0.05411698, 0.00570672), (5, 0.03619681, 8.90763669), (10, 0.02275137, 17.45194702)],
)
def test_digits(d: int, variance: float, log_likelihood: float) -> None:
    vae, x = fit_probabilistic_pca(digits(), d), digits()
    assert vae.model.likelihood.fixed_variance.item() == pytest.approx(variance, abs=1e-8)
    assert mean_log_evidence(vae, x) == pytest.approx(log_likelihood, abs=1e-7)


def test_iris() -> None:
    x = load_iris().data
    x = torch.from_numpy((x - x.mean(0)) / x.std(0))
    vae = fit_probabilistic_pca(x, 2)
    assert vae.model.likelihood.fixed_variance.item() == pytest.approx(0.08373586, abs=1e-8)
    assert mean_log_evidence(vae, x) == pytest.approx(-3.68625496, abs=1e-7)


def sklearn_deficit(num: int, width: int) -> float:
    """What scikit-learn's score loses because it divides by N - 1."""
    r = num / (num - 1)
    return width / 2 * (math.log(r) + 1 / r - 1)


@pytest.mark.parametrize("d", [2, 5, 10])
def test_sklearn_agrees_up_to_its_divisor(d: int) -> None:
    x = digits()
    pca = PCA(d, svd_solver="full").fit(x.numpy())
    vae, deficit = fit_probabilistic_pca(x, d), sklearn_deficit(*x.shape)
    assert mean_log_evidence(vae, x) == pytest.approx(pca.score(x.numpy()) + deficit, abs=1e-9)
    assert vae.model.likelihood.fixed_variance.item() * 1797 / 1796 == pytest.approx(pca.noise_variance_, abs=1e-12)


def test_deficit_of_the_known_example() -> None:
    assert sklearn_deficit(500, 6) == pytest.approx(6.008012e-06, abs=1e-12)


def test_sklearns_covariance_is_ours_times_the_ratio() -> None:
    x = data_with(synthetic_eigenvalues())
    model = fit_probabilistic_pca(x, 2).model
    w, c = model.decoder.weight, model.likelihood.fixed_variance
    ours = (w @ w.T + c * torch.eye(WIDTH, dtype=torch.float64)).detach().numpy()
    assert np.allclose(PCA(2).fit(x.numpy()).get_covariance(), ours * N / (N - 1), rtol=1e-12, atol=1e-12)


def test_no_neighbour_is_better() -> None:
    x = data_with(synthetic_eigenvalues())
    vae = fit_probabilistic_pca(x, 2, trainable=True)
    value = exact_log_evidence(vae.model, x).mean()
    for gradient in torch.autograd.grad(value, list(vae.model.parameters())):
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)
    for _ in range(20):
        other = copy.deepcopy(vae)
        for parameter in other.model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        assert mean_log_evidence(other, x) < value.item()


def test_evidence_at_the_optimum_is_the_formula() -> None:
    x, l = data_with(synthetic_eigenvalues()), synthetic_eigenvalues()  # noqa: E741
    vae = fit_probabilistic_pca(x, 2)
    c = vae.model.likelihood.fixed_variance.item()
    assert c == pytest.approx(SIGMA2, abs=1e-12)
    formula = -0.5 * (l[:2].log().sum().item() + 4 * math.log(c) + WIDTH * math.log(2 * math.pi) + WIDTH)
    assert mean_log_evidence(vae, x) == pytest.approx(formula, abs=1e-12)
    # the eigenvalues are known to eight digits
    assert formula == pytest.approx(MAX_LOG_LIKELIHOOD, abs=1e-7)
    assert_close(vae.model.decoder.weight.square().sum(0).detach(), l[:2] - c, rtol=1e-10, atol=1e-10)


def test_rate_distortion_and_aggregate_posterior() -> None:
    x = data_with(synthetic_eigenvalues())
    vae = fit_probabilistic_pca(x, 2)
    q, model = vae(x), vae.model
    prior = model.prior().expand(q.batch_shape)
    rate = torch.distributions.kl_divergence(q, prior).mean().item()
    w, c = model.decoder.weight.detach(), model.likelihood.fixed_variance
    error = (x - model.decoder(q.mean)).square().sum(1) + torch.einsum("di,nij,dj->n", w, q.covariance_matrix, w)
    distortion = (error / (2 * c) + WIDTH / 2 * (2 * math.pi * c).log()).mean().item()
    assert rate == pytest.approx(2.6748468436, abs=1e-7)
    assert distortion == pytest.approx(3.0466362588, abs=1e-7)
    assert -(rate + distortion) == pytest.approx(mean_log_evidence(vae, x), abs=1e-10)
    mean, covariance = posterior_moments(q)
    second_moment = (mean[:, :, None] * mean[:, None, :] + covariance).mean(0)
    assert_close(second_moment, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-10)


def test_active_units() -> None:
    x, vae = data_with(synthetic_eigenvalues()), fit_probabilistic_pca(data_with(synthetic_eigenvalues()), 2)
    statistic = vae(x).mean.var(0, correction=0)
    assert_close(statistic, torch.tensor([0.96741535, 0.85423796], dtype=torch.float64), rtol=0, atol=1e-8)
    assert (statistic > 0.01).all()


def test_optimal_variance_is_a_fixed_point() -> None:
    x = data_with(synthetic_eigenvalues())
    vae = fit_probabilistic_pca(x, 2)
    c = vae.model.likelihood.fixed_variance.item()
    assert optimal_variance(vae, x) == pytest.approx(c, abs=1e-10)
    q, w = vae(x), vae.model.decoder.weight.detach()
    squared = (x - vae.model.decoder(q.mean)).square().sum(1).mean()
    trace = torch.einsum("di,nij,dj->n", w, q.covariance_matrix, w).mean()
    assert ((squared + trace) / WIDTH).item() == pytest.approx(c, abs=1e-10)
    # the error at the mean alone is the mistake
    assert (squared / WIDTH).item() == pytest.approx(0.11257, abs=5e-6)


def rotated(angle: float) -> tuple[probvae.VAE, Tensor]:
    x = data_with(synthetic_eigenvalues())
    model = fit_probabilistic_pca(x, 2).model
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    weight, bias = model.decoder.weight.detach() @ rotation, model.decoder.bias.detach()
    turned = LinearGaussianModel(weight, bias, model.likelihood.fixed_variance)
    return probvae.VAE(turned, best_diagonal_guide(turned)), x


def test_diagonal_guide_is_exact_where_the_columns_are_orthogonal() -> None:
    vae, x = rotated(0.0)
    assert diagonal_gap(posterior_precision(vae.model)).item() == pytest.approx(0, abs=1e-10)
    assert_close(bound(vae, x).elbo, exact_log_evidence(vae.model, x).detach(), rtol=0, atol=1e-9)


def test_rotation_costs_the_diagonal_guide_and_not_the_evidence() -> None:
    vae, x = rotated(math.radians(30))
    assert mean_log_evidence(vae, x) == pytest.approx(mean_log_evidence(fit_probabilistic_pca(x, 2), x), abs=1e-10)
    gap = diagonal_gap(posterior_precision(vae.model)).item()
    assert gap == pytest.approx(0.20461738290014, abs=1e-8)  # the eigenvalues are known to eight digits
    first, second = LARGE
    cos2, sin2 = 0.75, 0.25
    formula = 0.5 * math.log((first * cos2 + second * sin2) * (first * sin2 + second * cos2) / (first * second))
    assert gap == pytest.approx(formula, abs=1e-10)


@pytest.mark.parametrize(
    ("c", "active", "elbo"),
    [(0.1, 6, -5.704141498), (0.5, 2, -6.626445652), (2.0, 1, -8.986185736), (5.0, 0, -11.013590658)],
)
def test_collapse_at_a_fixed_variance(c: float, active: int, elbo: float) -> None:
    l = synthetic_eigenvalues()  # noqa: E741
    assert num_active_directions(l, c) == active
    assert ppca_max_elbo(l, c).item() == pytest.approx(elbo, abs=1e-7)


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("c", [0.1, 0.5, 2.0, 5.0])
def test_max_elbo_is_reached_and_is_the_maximum(c: float, d: int) -> None:
    """The model with W_j^2 = l_j - c (or zero) has it, and no neighbour has more."""
    l, x = synthetic_eigenvalues(), data_with(synthetic_eigenvalues())  # noqa: E741
    rows = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2]
    weight = rows[:d].T * (l[:d] - c).clamp(min=0).sqrt()
    best = exact_log_evidence(LinearGaussianModel(weight, x.mean(0), c), x).mean().item()
    assert ppca_max_elbo(l, c, d).item() == pytest.approx(best, abs=1e-10)
    for _ in range(5):
        other = LinearGaussianModel(weight + 0.1 * torch.randn_like(weight), x.mean(0), c)
        assert exact_log_evidence(other, x).mean().item() < best


def test_beta_is_another_variance() -> None:
    """One direction, l = 3, c = 0.4, beta = 2.5: the optimum of E log p(x|z) - beta KL is w^2 = l - beta c."""
    l, c, beta = 3.0, 0.4, 2.5  # noqa: E741
    w, slope, log_s2 = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.0, 0.5, -1.0))
    optimizer = torch.optim.LBFGS([w, slope, log_s2], max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16)

    def loss() -> Tensor:
        optimizer.zero_grad()
        s2 = log_s2.exp()
        error = l * (1 - w * slope) ** 2 + w**2 * s2
        value = error / (2 * c) + beta * 0.5 * (slope**2 * l + s2 - 1 - log_s2)
        value.backward()
        return value

    optimizer.step(loss)
    assert w.item() ** 2 == pytest.approx(l - beta * c, abs=1e-6)
    assert log_s2.exp().item() == pytest.approx(beta * c / l, abs=1e-6)
    # the exact posterior of the model with c' = beta c is that q
    model = LinearGaussianModel(torch.tensor([[math.sqrt(l - beta * c)]], dtype=torch.float64), variance=beta * c)
    assert 1 / posterior_precision(model).item() == pytest.approx(beta * c / l, abs=1e-12)


@pytest.mark.parametrize("d", [3, 5])
def test_degenerate_data_have_no_maximum(d: int) -> None:
    """Rank 3 in 8 dimensions: the ELBO rises by (D - r) / 2 for every unit of -log c, and three directions are on."""
    l = torch.tensor([3.0, 2.0, 1.0, 0, 0, 0, 0, 0], dtype=torch.float64)  # noqa: E741
    values = [ppca_max_elbo(l, c, d).item() for c in (1e-3, 1e-3 / math.e)]
    assert values[1] - values[0] == pytest.approx(2.5, abs=1e-6)
    assert num_active_directions(l, 1e-6) == 3
    with pytest.raises(DataError, match=f"latent_dim={d} directions, and {d} explain them wholly"):
        fit_probabilistic_pca(data_with(l), d)


def test_degenerate_data_with_fewer_dimensions_have_one() -> None:
    l = torch.tensor([3.0, 2.0, 1.0, 0, 0, 0, 0, 0], dtype=torch.float64)  # noqa: E741
    vae = fit_probabilistic_pca(data_with(l), 2)
    assert vae.model.likelihood.fixed_variance.item() == pytest.approx(1 / 6, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_columns_than_rows(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    x = torch.randn(30, 3000, dtype=dtype) + 5 * torch.randn(30, 1, dtype=dtype)
    vae = fit_probabilistic_pca(x, 4)
    assert vae.model.decoder.weight.dtype == dtype
    covariance = PCA(4, svd_solver="full").fit(x.double().numpy())
    assert vae.model.likelihood.fixed_variance.item() > 0
    l = torch.from_numpy(covariance.explained_variance_) * 29 / 30  # noqa: E741
    total = (x.double() - x.double().mean(0)).square().sum().item() / 30
    c = (total - l.sum().item()) / 2996
    assert vae.model.likelihood.fixed_variance.item() == pytest.approx(c, rel=1e-6)
    expected = (l - c).sqrt()
    assert_close(vae.model.decoder.weight.norm(dim=0).detach().double(), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(DataError, match="29 explain them wholly"):
        fit_probabilistic_pca(x, 29)


def test_the_result_is_an_ordinary_vae(tmp_path) -> None:
    x = digits().float()
    vae = fit_probabilistic_pca(x, 3)
    assert_close(probvae.elbo(vae, x), exact_log_evidence(vae.model, x).detach(), rtol=1e-4, atol=1e-3)
    vae.save(tmp_path / "ppca.safetensors")
    loaded = probvae.load(tmp_path / "ppca.safetensors")
    assert torch.equal(exact_log_evidence(loaded.model, x), exact_log_evidence(vae.model, x))
    assert vae.model(num_data=4).shape == (4, 64)


def test_the_sign_is_fixed() -> None:
    weight = fit_probabilistic_pca(data_with(synthetic_eigenvalues()), 2).model.decoder.weight
    assert (weight.gather(0, weight.abs().argmax(0, keepdim=True)) > 0).all()


def test_bad_arguments() -> None:
    x = torch.randn(20, 4)
    with pytest.raises(ArgumentError, match=r"less than the data's 4 columns, got 4.*latent_dim <= 3"):
        fit_probabilistic_pca(x, 4)
    with pytest.raises(ArgumentError, match="integer >= 1, got 0"):
        fit_probabilistic_pca(x, 0)
    with pytest.raises(DataError, match="NaN"):
        fit_probabilistic_pca(torch.full((3, 4), math.nan), 2)
    with pytest.raises(DataError, match="1 explain them wholly"):
        fit_probabilistic_pca(torch.ones(20, 4), 1)
    with pytest.raises(ArgumentError, match="eigenvalues: expected a vector"):
        ppca_max_elbo(torch.tensor([-1.0]), 0.5)
    with pytest.raises(ArgumentError, match="variance: expected a finite number > 0"):
        num_active_directions(torch.ones(3), 0)


@pytest.mark.parametrize("num_rows", [200, 20_000])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_float32_data_far_from_zero_are_fitted(offset: float, num_rows: int) -> None:
    """Against the same data in float64 without the offset; the guard against data of few directions knows no N."""
    x = (torch.randn(num_rows, 2) @ torch.randn(2, 5) + 0.3 * torch.randn(num_rows, 5)).float() + offset
    vae = fit_probabilistic_pca(x, latent_dim=2)
    centred = fit_probabilistic_pca(x.double() - offset, latent_dim=2)
    variances = [pair.model.likelihood.fixed_variance.item() for pair in (vae, centred)]
    assert abs(variances[0] - variances[1]) < 1e-5 * variances[1]


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_float32_data_of_few_directions_are_refused_also_far_from_zero(offset: float) -> None:
    x = ((torch.randn(5000, 2, dtype=torch.float64) @ torch.randn(2, 5, dtype=torch.float64)) + offset).float()
    with pytest.raises(DataError, match="explain them wholly"):
        fit_probabilistic_pca(x, latent_dim=2)
