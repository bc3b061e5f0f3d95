"""The closed form against scipy, torch, brute force and numerical integration."""

import math

import mpmath
import pytest
import torch
from pyro import distributions as dist
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

from probvae.errors import ArgumentError, DataError, NotLinearGaussianError, ShapeError
from probvae.inference import (
    exact_log_evidence,
    exact_posterior,
    has_exact_posterior,
    posterior_moments,
    posterior_precision,
)
from probvae.inference.linear import exact
from probvae.models import (
    BernoulliLikelihood,
    GaussianLikelihood,
    LatentModel,
    LinearDecoder,
    LinearGaussianModel,
    MixturePrior,
    MLPDecoder,
    NormalPrior,
    Prior,
    StandardNormalPrior,
)
from tests.support import example_a

D = 5
PRIORS = {
    "standard": lambda: StandardNormalPrior(2),
    "diagonal": lambda: NormalPrior(2),
    "full": lambda: NormalPrior(2, "full"),
    "mixture": lambda: MixturePrior(2, 3),
    "full mixture": lambda: MixturePrior(2, 3, "full"),
    "mixture of one": lambda: MixturePrior(2, 1, "full"),
}
VARIANCES = {"one": 0.37, "each": torch.tensor([0.1, 0.2, 0.5, 0.03, 2.0], dtype=torch.float64)}
ALL_PRIORS = pytest.mark.parametrize("prior", PRIORS)
ALL_VARIANCES = pytest.mark.parametrize("variance", VARIANCES)


def random_model(prior: str, variance: str) -> LinearGaussianModel:
    torch.manual_seed(3)
    made = PRIORS[prior]().double()
    for parameter in made.parameters():
        parameter.data = 0.3 + 0.6 * torch.randn_like(parameter)
    weight, bias = torch.randn(D, 2, dtype=torch.float64), torch.randn(D, dtype=torch.float64)
    return LinearGaussianModel(weight, bias, VARIANCES[variance], prior=made)


def prior_components(prior: Prior) -> list[tuple[float, Tensor, Tensor]]:
    """Weight, mean and covariance of each component, from the prior's own distribution."""
    p = prior()
    if not isinstance(p, dist.MixtureSameFamily):
        return [(1.0, p.mean.detach(), _covariance(p))]
    parts, weights = p.component_distribution, p.mixture_distribution.probs
    return [(weights[k].item(), parts.mean[k].detach(), _covariance(parts)[k]) for k in range(len(weights))]


def _covariance(p: dist.TorchDistribution) -> Tensor:
    full = p.covariance_matrix if isinstance(p, dist.MultivariateNormal) else torch.diag_embed(p.variance)
    return full.detach()


def joint(model: LinearGaussianModel) -> list[tuple[float, Tensor, Tensor]]:
    """Weight, mean and covariance of (z, x) for each component: d + D square, as nobody should compute it."""
    w, b = model.decoder.weight.detach(), model.decoder.bias.detach()
    c = torch.diag(model.likelihood.variance(b).detach().expand(D))
    out = []
    for weight, mean, s in prior_components(model.prior):
        covariance = torch.cat([torch.cat([s, s @ w.T], 1), torch.cat([w @ s, w @ s @ w.T + c], 1)])
        out.append((weight, torch.cat([mean, w @ mean + b]), covariance))
    return out


def brute_force(model: LinearGaussianModel, x: Tensor, mask: Tensor) -> tuple[float, Tensor, Tensor]:
    """log p(x_o), mean and covariance of (z, x) given x_o for one datum, by conditioning the joint Gaussian."""
    observed = torch.cat([torch.zeros(2, dtype=torch.bool), mask])
    log_weights, means, covariances = [], [], []
    for weight, mean, s in joint(model):
        s_oo, s_ao = s[observed][:, observed], s[:, observed]
        log_p = 0.0
        if mask.any():
            log_p = float(stats.multivariate_normal(mean[observed].numpy(), s_oo.numpy()).logpdf(x[mask].numpy()))
        log_weights.append(math.log(weight) + log_p)
        means.append(mean + s_ao @ torch.linalg.solve(s_oo, x[mask] - mean[observed]))
        covariances.append(s - s_ao @ torch.linalg.solve(s_oo, s_ao.T))
    log_terms, m = torch.tensor(log_weights, dtype=torch.float64), torch.stack(means)
    weights = log_terms.softmax(0)
    total = (weights[:, None] * m).sum(0)
    spread = torch.stack(covariances) + (m - total)[:, :, None] * (m - total)[:, None, :]
    return log_terms.logsumexp(0).item(), total, (weights[:, None, None] * spread).sum(0)


def test_example_a() -> None:
    model = example_a.model()
    assert_close(exact_log_evidence(model, example_a.X), example_a.LOG_P, rtol=0, atol=1e-10)
    q = exact_posterior(model, example_a.X)
    assert isinstance(q, dist.MultivariateNormal)
    assert (q.batch_shape, q.event_shape) == ((2,), (2,))
    mean = torch.tensor([-0.021331204, 0.153510523], dtype=torch.float64)
    covariance = [[0.1497176752, -0.0413505960], [-0.0413505960, 0.1304682599]]
    covariance = torch.tensor(covariance, dtype=torch.float64)
    assert_close(q.mean[0], mean, rtol=0, atol=1e-9)
    assert_close(q.covariance_matrix[0], covariance, rtol=0, atol=1e-9)
    assert_close(posterior_precision(model), example_a.precision(), rtol=0, atol=1e-12)


@ALL_PRIORS
@ALL_VARIANCES
def test_evidence_matches_scipy(prior: str, variance: str) -> None:
    model, x = random_model(prior, variance), 2 * torch.randn(7, D, dtype=torch.float64)
    terms = [
        math.log(weight) + stats.multivariate_normal(mean[2:].numpy(), s[2:, 2:].numpy()).logpdf(x.numpy())
        for weight, mean, s in joint(model)
    ]
    expected = torch.stack([torch.from_numpy(term) for term in terms]).logsumexp(0)
    assert_close(exact_log_evidence(model, x).detach(), expected, rtol=1e-11, atol=1e-11)


@ALL_PRIORS
@ALL_VARIANCES
def test_joint_over_posterior_is_the_evidence_at_every_z(prior: str, variance: str) -> None:
    model, x = random_model(prior, variance), 2 * torch.randn(7, D, dtype=torch.float64)
    z = 2 * torch.randn(100, 7, 2, dtype=torch.float64)  # not draws of the posterior
    log_joint = model.prior().log_prob(z) + model.likelihood(model.decoder(z)).log_prob(x)
    log_ratio = log_joint - exact_posterior(model, x).log_prob(z)
    assert_close(log_ratio, exact_log_evidence(model, x).expand(100, 7), rtol=0, atol=1e-9)


@pytest.mark.parametrize("masked", [True, False])
@ALL_PRIORS
@ALL_VARIANCES
def test_posterior_is_the_conditional_of_the_joint(prior: str, variance: str, masked: bool) -> None:
    model, x = random_model(prior, variance), 2 * torch.randn(7, D, dtype=torch.float64)
    mask = torch.rand(7, D) < 0.5 if masked else torch.ones(7, D, dtype=torch.bool)
    mask[0], mask[1] = True, False  # all observed, none observed
    damaged = torch.where(mask, x, math.nan)
    mean, covariance = posterior_moments(exact_posterior(model, damaged, mask))
    log_p = exact_log_evidence(model, damaged, mask)
    for n in range(7):
        expected = brute_force(model, x[n], mask[n])
        assert log_p[n].item() == pytest.approx(expected[0], abs=1e-10)
        assert_close(mean[n].detach(), expected[1][:2], rtol=1e-10, atol=1e-10)
        assert_close(covariance[n].detach(), expected[2][:2, :2], rtol=1e-10, atol=1e-10)


@ALL_PRIORS
def test_nothing_observed_leaves_the_prior(prior: str) -> None:
    model, x = random_model(prior, "each"), torch.full((4, D), math.nan, dtype=torch.float64)
    mask, z = torch.zeros(4, D, dtype=torch.bool), torch.randn(9, 4, 2, dtype=torch.float64)
    assert_close(exact_posterior(model, x, mask).log_prob(z), model.prior().log_prob(z), rtol=1e-12, atol=1e-12)
    assert_close(exact_log_evidence(model, x, mask), torch.zeros(4).double(), rtol=0, atol=1e-12)


@ALL_PRIORS
def test_a_mask_that_hides_nothing_changes_nothing(prior: str) -> None:
    model, x = random_model(prior, "each"), torch.randn(4, D, dtype=torch.float64)
    mask = torch.ones(4, D, dtype=torch.bool)
    assert torch.equal(exact_log_evidence(model, x, mask), exact_log_evidence(model, x))


def known_mixture() -> LinearGaussianModel:
    """Example A with the prior of known-answers section 1.9."""
    prior = MixturePrior(2, 2, "full").double()
    s = torch.tensor([[[0.5, 0.1], [0.1, 0.4]], [[0.3, 0.0], [0.0, 0.8]]], dtype=torch.float64)
    factor = torch.linalg.cholesky(s)
    prior.logits.data = 1.7 + torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    prior.loc.data = torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=torch.float64)
    prior.log_scale.data = factor.diagonal(dim1=-2, dim2=-1).log()
    prior.dependence.data = (factor[:, 1, 0] / factor[:, 1, 1])[:, None]
    return LinearGaussianModel(example_a.W, example_a.B, example_a.C, prior=prior)


def test_known_mixture() -> None:
    model, x = known_mixture(), example_a.X[:1]
    assert exact_log_evidence(model, x).item() == pytest.approx(-5.458836533301168, abs=1e-10)
    q = exact_posterior(model, x)
    component = q.component_distribution
    weights = torch.tensor([0.3882065105, 0.6117934895], dtype=torch.float64)
    means = torch.tensor([[-0.3355540502, 0.3672386256], [0.3544151482, 0.0482955903]], dtype=torch.float64)
    first = torch.tensor([[0.1233875462, -0.0220621594], [-0.0220621594, 0.1036300021]], dtype=torch.float64)
    second = torch.tensor([[0.1107285984, -0.0296983062], [-0.0296983062, 0.1235722625]], dtype=torch.float64)
    assert_close(q.mixture_distribution.probs[0], weights, rtol=0, atol=1e-9)
    assert_close(component.mean[0], means, rtol=0, atol=1e-9)
    assert_close(component.covariance_matrix[0], torch.stack([first, second]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("prior", ["full mixture", "mixture"])
def test_mixture_matches_integration_over_the_plane(prior: str) -> None:
    model, x = random_model(prior, "each"), torch.randn(3, D, dtype=torch.float64)
    mean, covariance = (moment.detach() for moment in posterior_moments(exact_posterior(model, x)))
    for n in range(3):
        # a box around this posterior; the trapezoid rule converges geometrically for a smooth decaying density
        scale = covariance[n].diagonal().sqrt()
        u = torch.linspace(-12, 12, 401, dtype=torch.float64)
        z = mean[n] + scale * torch.cartesian_prod(u, u)
        log_joint = model.prior().log_prob(z) + model.likelihood(model.decoder(z)).log_prob(x[n])
        log_cell = (scale * (u[1] - u[0])).log().sum()
        density = (log_joint - log_joint.logsumexp(0)).exp().detach()
        assert_close(log_joint.logsumexp(0) + log_cell, exact_log_evidence(model, x)[n], rtol=0, atol=1e-9)
        assert_close((density[:, None] * z).sum(0), mean[n], rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", ["learned", "per-dimension", "optimal", 0.3])
def test_every_variance_that_does_not_depend_on_z(mode: str | float) -> None:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, D), GaussianLikelihood(D, mode, 0.7)).double()
    for parameter in model.parameters():
        parameter.data = 0.5 * torch.randn_like(parameter)
    x, w = torch.randn(6, D, dtype=torch.float64), model.decoder.weight
    c = model.likelihood.variance(x).expand(D)
    expected = torch.distributions.MultivariateNormal(model.decoder.bias, w @ w.T + torch.diag(c)).log_prob(x)
    assert_close(exact_log_evidence(model, x), expected, rtol=1e-11, atol=1e-11)


def test_torch_linear_is_a_linear_decoder() -> None:
    for bias in (True, False):
        decoder = torch.nn.Linear(2, D, bias=bias).double()
        model = LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(D, 0.5)).double()
        given = LinearGaussianModel(decoder.weight.detach(), decoder.bias.detach() if bias else None, 0.5)
        x = torch.randn(6, D, dtype=torch.float64)
        assert_close(exact_log_evidence(model, x), exact_log_evidence(given, x), rtol=0, atol=1e-12)


def test_gradients_are_those_of_the_dense_formula() -> None:
    model = random_model("full", "each").requires_grad_(True)
    x, p = torch.randn(6, D, dtype=torch.float64), model.prior()
    w, c = model.decoder.weight, model.likelihood.variance(model.decoder.bias)
    dense = torch.distributions.MultivariateNormal(
        model.decoder(p.mean), w @ p.covariance_matrix @ w.T + torch.diag(c)
    ).log_prob(x)
    expected = torch.autograd.grad(dense.sum(), list(model.parameters()))
    got = torch.autograd.grad(exact_log_evidence(model, x).sum(), list(model.parameters()))
    assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("masked", [True, False])
def test_wide_data_never_need_a_square_matrix(masked: bool) -> None:
    """D = 20 000, where the square matrix would take 3.2 GB. One latent dimension, so that all is known by hand."""
    weight, variance = torch.randn(20_000, 1, dtype=torch.float64), torch.rand(20_000, dtype=torch.float64) + 0.1
    model, x = LinearGaussianModel(weight, variance=variance), torch.randn(4, 20_000, dtype=torch.float64)
    mask = torch.rand(4, 20_000) < 0.5 if masked else torch.ones(4, 20_000, dtype=torch.bool)
    w, m = weight[:, 0], mask.double()
    information, projected = (m * w.square() / variance).sum(1), (m * x * w / variance).sum(1)
    quadratic = (m * x.square() / variance).sum(1) - projected.square() / (1 + information)
    log_det = (1 + information).log() + (m * (2 * math.pi * variance).log()).sum(1)
    given = mask if masked else None
    assert_close(exact_log_evidence(model, x, given), -0.5 * (quadratic + log_det), rtol=1e-12, atol=0)
    assert_close(exact_posterior(model, x, given).mean[:, 0], projected / (1 + information), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("prior", ["standard", "full mixture"])
def test_chunks_do_not_change_the_result(prior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = random_model(prior, "each"), torch.randn(50, D, dtype=torch.float64)
    mask = torch.rand(50, D) < 0.7
    whole = exact_log_evidence(model, x, mask)
    monkeypatch.setattr(exact, "_CHUNK_BYTES", 8 * 3 * D * 3)
    assert_close(exact_log_evidence(model, x, mask), whole, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("prior", PRIORS)
def test_a_small_variance_does_not_cancel(prior: str) -> None:
    """|x|^2 / c is of order 1e10 and the answer of order 10: subtracting two such numbers would leave 1e-6 at best."""
    c, z, given = 1e-10, torch.tensor([0.7, -1.1], dtype=torch.float64), random_model(prior, "one")
    w = given.decoder.weight.detach()
    model, x = LinearGaussianModel(w, None, c, prior=given.prior), w @ z
    # to first order in c: x lies on the plane, so that p(z) and two determinants are left
    flat = -0.5 * torch.logdet(w.T @ w).item() - 0.5 * (D - 2) * math.log(2 * math.pi * c)
    expected = given.prior().log_prob(z).item() + flat
    assert exact_log_evidence(model, x[None]).item() == pytest.approx(expected, abs=1e-8)


def test_data_are_converted_to_the_models_dtype() -> None:
    x = example_a.X.float()
    assert exact_posterior(example_a.model(), x).mean.dtype == torch.float64
    assert exact_log_evidence(example_a.model().float(), example_a.X).dtype == torch.float32


class LaplaceTestPrior(Prior):
    latent_dim = 2

    def forward(self) -> dist.TorchDistribution:
        return dist.Laplace(torch.zeros(2), torch.ones(2)).to_event(1)

    @classmethod
    def example(cls) -> "LaplaceTestPrior":
        return cls()


class CurvedTestDecoder(LinearDecoder):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z).tanh()


@pytest.mark.parametrize(
    ("prior", "decoder", "likelihood", "message"),
    [
        (StandardNormalPrior(2), MLPDecoder(2, 3), GaussianLikelihood(3), "decoder MLPDecoder, which is not linear"),
        (StandardNormalPrior(2), CurvedTestDecoder(2, 3), GaussianLikelihood(3), "CurvedTestDecoder, which is not"),
        (StandardNormalPrior(2), LinearDecoder(2, 3), BernoulliLikelihood(3), "likelihood BernoulliLikelihood, which"),
        (StandardNormalPrior(2), LinearDecoder(2, 3, 4), GaussianLikelihood(3, "per-datum"), "'per-datum', which dep"),
        (LaplaceTestPrior(), LinearDecoder(2, 3), GaussianLikelihood(3), "prior LaplaceTestPrior, which is no mixture"),
        (LaplaceTestPrior(), MLPDecoder(2, 3), BernoulliLikelihood(3), "MLPDecoder.*BernoulliLikelihood.*LaplaceTest"),
    ],
)
def test_models_without_closed_form_say_why(prior, decoder, likelihood, message: str) -> None:
    model = LatentModel(prior, decoder, likelihood)
    assert not has_exact_posterior(model)
    for function in (exact_posterior, exact_log_evidence):
        with pytest.raises(NotLinearGaussianError, match=message):
            function(model, torch.zeros(4, 3))


def test_precision_needs_one_gaussian() -> None:
    assert has_exact_posterior(random_model("mixture", "one"))
    with pytest.raises(NotLinearGaussianError, match="prior MixturePrior has 3 components"):
        posterior_precision(random_model("mixture", "one"))


@pytest.mark.parametrize("prior", ["standard", "diagonal", "full", "mixture of one"])
@ALL_VARIANCES
def test_precision_is_the_inverse_covariance(prior: str, variance: str) -> None:
    model = random_model(prior, variance)
    q = exact_posterior(model, torch.zeros(1, D, dtype=torch.float64))
    assert_close(posterior_precision(model), torch.linalg.inv(q.covariance_matrix[0]), rtol=1e-10, atol=1e-10)


def test_bad_masks() -> None:
    model, x = example_a.model(), example_a.X
    with pytest.raises(ShapeError, match=r"mask: expected the shape of x, \(2, 3\), got \(3,\)"):
        exact_posterior(model, x, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"got \(2, 1\)"):
        exact_log_evidence(model, x, torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(ArgumentError, match=r"boolean tensor.*got torch.float32"):
        exact_posterior(model, x, torch.ones(2, 3))


def test_bad_data() -> None:
    model, x = example_a.model(), example_a.X.clone()
    with pytest.raises(ShapeError, match="expected 3 columns, got 2"):
        exact_posterior(model, x[:, :2])
    x[1, 0] = math.nan
    with pytest.raises(DataError, match=r"1 of 2 rows contain NaN or infinity \(first: row 1\)"):
        exact_posterior(model, x)
    with pytest.raises(DataError, match="row 1"):
        exact_log_evidence(model, x, torch.tensor([[True, True, False]]).expand(2, 3))


def test_numbers_that_overflow_name_the_remedy() -> None:
    model = LinearGaussianModel(torch.full((3, 2), 1e200, dtype=torch.float64), variance=1e-250).double()
    with pytest.raises(ArgumentError, match=r"overflow.*Raise the variance c"):
        exact_posterior(model, torch.zeros(1, 3, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("variance", [1e-12, 1e-8, 1e-3, 0.4, 1e6])
@pytest.mark.parametrize("difference", [0.0, 1e-6, 1e-2])
def test_nearly_equal_columns_of_w_lose_nothing(difference: float, variance: float, dtype: torch.dtype) -> None:
    """Against mpmath with 80 digits, at data that the model makes; W has two columns that differ by ``difference``."""
    weight = torch.randn(6, 3, dtype=torch.float64)
    weight[:, 1] = weight[:, 0] + difference * torch.randn(6)
    weight, bias = weight.to(dtype), torch.randn(6).to(dtype)
    model = LinearGaussianModel(weight, bias, variance=variance).to(dtype)
    noise = variance**0.5 * torch.randn(4, 6).to(dtype)
    x = torch.randn(4, 3).to(dtype) @ weight.mT + bias + noise
    found, posterior = exact_log_evidence(model, x), exact_posterior(model, x)
    c = model.likelihood.variance(torch.empty(0)).item()
    eps = torch.finfo(dtype).eps
    # The mean moves by so much for one rounding of x in float64.
    sensitivity = 2.3e-16 * float(x.abs().max()) / float(torch.linalg.svdvals(weight.double())[-1] ** 2 + c) ** 0.5
    for row, (log_evidence, mean) in enumerate(zip(*_known(weight, bias, c, x), strict=True)):
        # One rounding of W z + b in float64, over the noise's own size, is what the data themselves do not resolve.
        rounding = 64 * 2.3e-16 * float(x.abs().max()) / c**0.5
        assert abs(found[row].item() - log_evidence) <= 64 * eps * max(1, abs(log_evidence)) + rounding
        assert max(abs(posterior.mean[row, i].item() - mean[i]) for i in range(3)) <= 64 * (eps + sensitivity)


def _known(weight: Tensor, bias: Tensor, c: float, x: Tensor) -> tuple[list[mpmath.mpf], list[mpmath.matrix]]:
    """log N(x; b, W W^T + c I) and M^-1 W^T (x - b) for each row of ``x`` (N, D)."""
    with mpmath.workdps(80):
        w = mpmath.matrix(weight.double().tolist())
        covariance = w * w.T + mpmath.eye(w.rows) * mpmath.mpf(c)
        precision = w.T * w + mpmath.eye(w.cols) * mpmath.mpf(c)
        constant = mpmath.log(mpmath.det(covariance)) + w.rows * mpmath.log(2 * mpmath.pi)
        evidences, means = [], []
        for row in x.tolist():
            centred = mpmath.matrix([mpmath.mpf(a) - mpmath.mpf(b) for a, b in zip(row, bias.tolist(), strict=True)])
            evidences.append(-((centred.T * mpmath.lu_solve(covariance, centred))[0] + constant) / 2)
            means.append(mpmath.lu_solve(precision, w.T * centred))
        return evidences, means
