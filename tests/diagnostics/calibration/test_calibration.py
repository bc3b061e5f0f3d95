"""Each fault is seen by the tests that claim to see it, and by no others; a right posterior is left in peace."""

import json
import math
from collections.abc import Callable
from typing import Self

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from scipy import stats
from torch import Tensor, nn
from torch.testing import assert_close

import probvae
from probvae.diagnostics import calibrate_pairs, calibration, calibration_on_data
from probvae.diagnostics.calibration.posterior_draws import posterior_draws
from probvae.diagnostics.verdicts import FAIL_LEVEL, NotComputed, holm, judge
from probvae.errors import ArgumentError, DataError
from probvae.inference import DiagonalGuide, ExactGuide, FreeGuide, Guide, MLPEncoder
from probvae.inference.evaluation.simulation import simulate_pairs
from probvae.inference.linear.exact import exact_posterior, posterior_precision
from probvae.models import GaussianLikelihood, LabelCovariates, LatentModel, MLPDecoder, StandardNormalPrior
from tests.diagnostics.faults import FAULTS, bimodal_vae, correlated_vae, faulty, folded_vae
from tests.support import example_a
from tests.support.vaes import exact_guide_vae

ALL = {"sbc", "central_coverage", "hpd_coverage", "tarp", "log_weight", "c2st", "z_score", "spread"}
# where the fault is seen 20 times out of 20 with 1000 pairs, each test at the level that ten tests leave it
SEEN: dict[str, tuple[Callable[[], probvae.VAE], set[str]]] = {
    "mean + 0.3 sd": (correlated_vae, {"sbc", "log_weight", "z_score"}),
    "mean + 1 sd": (correlated_vae, ALL),
    "sd x 0.7": (correlated_vae, ALL - {"z_score"}),
    "sd x 1.4": (correlated_vae, ALL - {"z_score"}),
    "no correlation": (correlated_vae, {"hpd_coverage", "log_weight", "c2st"}),
    "one mode dropped": (bimodal_vae, ALL),
    "prior": (correlated_vae, {"tarp", "log_weight", "c2st"}),
    "one latent collapsed": (correlated_vae, {"tarp", "log_weight", "c2st"}),
    "shuffled": (correlated_vae, ALL - {"z_score"}),
}
# what cannot see it, and must not: the blind spots
BLIND = {
    "sd x 0.7": {"z_score"},
    "sd x 1.4": {"z_score"},
    "no correlation": {"sbc", "central_coverage", "z_score", "spread"},
    "prior": {"sbc", "central_coverage", "hpd_coverage", "z_score", "spread"},
    "one latent collapsed": {"sbc", "central_coverage", "z_score", "spread"},
    "shuffled": {"z_score"},
}


def p_values(vae: probvae.VAE, seed: int, num: int = 1000, num_draws: int = 200) -> dict[str, float]:
    result = calibration(vae, num_simulations=num, num_draws=num_draws, seed=seed)
    return {test.name.removeprefix("calibration/"): test.p_value for test in result.tests()}


def check_fault(name: str, seeds: range) -> None:
    make, seen = SEEN[name]
    found = [p_values(faulty(make(), name), seed) for seed in seeds]
    for test in seen:
        assert max(p[test] for p in found) < FAIL_LEVEL / 10, test
    for test in BLIND.get(name, set()):
        assert np.median([p[test] for p in found]) > 0.1, test


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_seen(name: str) -> None:
    check_fault(name, range(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_seen_in_twenty_of_twenty(name: str) -> None:
    check_fault(name, range(20))


def test_one_mode_of_a_folded_posterior_is_seen() -> None:
    """The importance weights of this guide are nearly constant; half of the mass is missing."""
    assert max(p_values(faulty(folded_vae(0.01), "one mode dropped"), seed=1).values()) < 1e-10


def test_linear_references_do_not_help_where_the_mean_says_nothing() -> None:
    """A blind spot: E[z|x] = 0 for f(z) = |z|, so TARP's references do not depend on x. The others see it."""
    p = p_values(faulty(folded_vae(), "prior"), seed=1)
    assert p["tarp"] > 1e-3
    assert max(p["log_weight"], p["c2st"]) < 1e-10


@pytest.mark.slow
def test_right_posteriors_raise_no_alarm() -> None:
    makers, num_seeds = (correlated_vae, bimodal_vae, folded_vae, exact_guide_vae), 2000
    rows = np.array([[*p_values(makers[seed % 4](), seed, 100, 30).values()] for seed in range(num_seeds)])
    share = np.mean([min(holm(row)) < FAIL_LEVEL for row in rows.tolist()])
    assert share < FAIL_LEVEL + 4 * math.sqrt(FAIL_LEVEL * (1 - FAIL_LEVEL) / num_seeds)
    for column in rows.T:  # uniform or larger: the ECDF is nowhere far above the diagonal
        assert stats.kstest(column, "uniform", alternative="greater").pvalue > 1e-3


class BestDiagonalGuide(Guide):
    """The best diagonal normal: the exact mean, variances 1 / P_ii."""

    def __init__(self, model: LatentModel, factor: float = 1.0) -> None:
        super().__init__(model.latent_dim)
        self.scale = factor * posterior_precision(model).detach().diagonal().rsqrt()
        self._model = (model,)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return dist.Normal(exact_posterior(self._model[0], x).mean, self.scale).to_event(1)

    @classmethod
    def example(cls) -> Self:
        return cls(example_a.model())


@pytest.mark.parametrize(("rho", "central", "joint"), [(0.6, 0.8118, 0.782), (0.8, 0.6763, 0.627)])
def test_coverage_of_the_best_diagonal_guide(rho: float, central: float, joint: float) -> None:
    model = correlated_vae(rho).model
    num = 5000
    result = calibration(probvae.VAE(model, BestDiagonalGuide(model)), num_simulations=num)
    covered = result.coverage(0.9)
    for share, expected in ((covered["central"], central), (covered["highest_density"], joint)):
        assert abs(share["value"] - expected) < 4 * math.sqrt(expected * (1 - expected) / num)
    inside = (result.central_level <= 0.9).double().mean(0)  # of each latent
    assert (inside - central).abs().max() < 4 * math.sqrt(central * (1 - central) / num)


def test_ranks_of_a_guide_that_is_too_narrow() -> None:
    """Standard deviations times r: the ranks have the CDF Phi(r Phi^-1(u))."""
    vae = exact_guide_vae()
    result = calibration(faulty(vae, "sd x 0.7"), num_simulations=2000)
    cdf = stats.norm.cdf(0.7 * stats.norm.ppf(result.rank[:, 0].numpy()))
    assert stats.kstest(cdf, "uniform").pvalue > 1e-3
    assert p_values(faulty(vae, "sd x 0.7"), seed=2, num=2000)["sbc"] < 1e-10


def test_scores_and_contraction_of_the_exact_guide() -> None:
    result = calibration(exact_guide_vae(), num_simulations=4000, num_draws=30)
    covariance = torch.linalg.inv(example_a.precision())
    assert_close(result.contraction, (1 - covariance.diagonal()).expand(4000, 2))
    assert (result.score.mean(0).abs() < 4 / math.sqrt(4000)).all()
    assert ((result.score.square().mean(0) - 1).abs() < 4 * math.sqrt(2 / 4000)).all()
    assert abs(result.c2st.accuracy - 0.5) < 4 * 0.5 / math.sqrt(result.c2st.num_judged)


def test_verdicts_say_what_is_wrong() -> None:
    result = calibration(faulty(correlated_vae(), "sd x 0.7"), num_simulations=500)
    told = {verdict.name.split("/")[1]: verdict for verdict in judge(result.tests())}
    assert told["sbc"].status == "fail"
    assert "too narrow" in told["sbc"].message
    assert "too sure of itself" in told["hpd_coverage"].message
    assert "too small" in told["spread"].message
    assert told["z_score"].status == "ok"
    biased = calibration(faulty(correlated_vae(), "mean + 1 sd"), num_simulations=500).tests()[0]
    assert "the guide lies too high" in biased.rejected
    assert result.verdicts() == []


def test_summary_is_plain_data() -> None:
    summary = calibration(exact_guide_vae(), num_simulations=100, num_draws=30).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["num_simulations"], summary["num_draws"]) == (100, 30)
    assert [level["expected"] for level in summary["coverage"]] == [0.5, 0.9, 0.95]
    assert len(summary["contraction"]) == 2


def test_seed_decides_and_the_callers_state_is_left() -> None:
    vae, state = exact_guide_vae(), torch.get_rng_state()
    one, two, other = (p_values(vae, seed, num=50, num_draws=20) for seed in (1, 1, 2))
    assert one == two != other
    assert torch.equal(torch.get_rng_state(), state)


def test_pairs_made_with_the_same_seed_are_independent_of_the_draws() -> None:
    result = calibrate_pairs(simulate_pairs(exact_guide_vae(), 500, seed=4), num_draws=50, seed=4)
    assert min(test.p_value for test in result.tests()) > 1e-3


def test_chunks_are_joined_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from probvae.inference.evaluation import memory

    monkeypatch.setattr(memory, "MEMORY_LIMIT", 200_000)
    pairs = simulate_pairs(exact_guide_vae(), 60, seed=4)
    result = calibrate_pairs(pairs, num_draws=20, seed=4)
    q = pairs.vae.guide.distribution(pairs.x)
    assert_close(result.score, ((pairs.z - q.mean) / q.variance.sqrt()).detach())


class HiddenLinear(nn.Module):
    """The decoder of example A, in a class that shows no closed form."""

    latent_dim, num_outputs = 2, 3

    def forward(self, z: Tensor) -> Tensor:
        return z @ example_a.W.T + example_a.B


def hidden_model() -> LatentModel:
    return LatentModel(StandardNormalPrior(2), HiddenLinear(), example_a.model().likelihood).double()


def test_draws_from_the_grid_are_from_the_posterior() -> None:
    x = example_a.X[:1].expand(400, 3)
    model = hidden_model()
    draws = posterior_draws(probvae.VAE(model, ExactGuide(example_a.model())), x)
    assert draws.method == "posterior by numerical integration"
    p = exact_posterior(example_a.model(), x)
    white = torch.linalg.solve_triangular(p.scale_tril, (draws.z - p.mean).unsqueeze(-1), upper=False)[..., 0]
    for column in white.detach().T:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(white.square().sum(1).detach().numpy(), "chi2", args=(2,)).pvalue > 1e-3


def test_draws_from_the_grid_of_two_narrow_modes() -> None:
    vae = folded_vae(0.01)
    x = simulate_pairs(vae, 1000, seed=2).x
    z, q = posterior_draws(vae, x).z[:, 0], vae.guide.distribution(x)
    low = torch.distributions.Normal(0.0, 1.0).cdf(-q.loc / q.scale)
    level = (torch.distributions.Normal(0.0, 1.0).cdf((z.abs() - q.loc) / q.scale) - low) / (1 - low)
    assert stats.kstest(level.numpy(), "uniform").pvalue > 1e-3
    assert abs((z > 0).double().mean() - 0.5) < 4 * 0.5 / math.sqrt(1000)


def conditional_vae() -> probvae.VAE:
    """z in one dimension, which x and the label tell; no closed form."""
    covariates = LabelCovariates(["cat", "cow"])
    model = LatentModel(StandardNormalPrior(1), MLPDecoder(3, 2), GaussianLikelihood(2, 0.01), covariates)
    with torch.no_grad():
        for layer in model.decoder.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(3)  # labels must matter
    return probvae.VAE(model.double(), DiagonalGuide(MLPEncoder(4), 1).double())


def test_draws_from_the_grid_where_each_datum_has_covariates() -> None:
    vae = conditional_vae().given(["cat", "cow"] * 150)
    pairs = simulate_pairs(vae, 300, seed=1)
    again = posterior_draws(vae, pairs.x).z
    assert np.corrcoef(pairs.z[:, 0], again[:, 0])[0, 1] > 0.5
    # given x both are draws of the same posterior, and so are log p(x|z) of both
    for difference in (pairs.z - again, vae.model.log_joint(pairs.x, pairs.z) - vae.model.log_joint(pairs.x, again)):
        assert stats.ttest_1samp(difference.detach().flatten().numpy(), 0).pvalue > 1e-3
    result = calibrate_pairs(pairs._replace(z=again), num_draws=50)
    assert min(holm([test.p_value for test in result.tests()])) < FAIL_LEVEL  # the guide was not fitted


def test_missing_entries() -> None:
    model = LatentModel(StandardNormalPrior(2), example_a.model().decoder, example_a.model().likelihood, missing="mask")
    vae, like = probvae.VAE(model.double(), ExactGuide(model)), example_a.X.clone()
    like[0, 1] = torch.nan
    result = calibration(vae, num_simulations=300, num_draws=50, like=like)
    assert min(holm([test.p_value for test in result.tests()])) > FAIL_LEVEL


@pytest.mark.parametrize("make", [exact_guide_vae, folded_vae])
def test_exact_guide_is_right_at_any_data(make) -> None:
    vae = make()
    x = 1 + torch.randn(300, vae.model.data_dim, dtype=torch.float64).abs()
    result = calibration_on_data(vae, x, num_draws=100)
    assert result.section == "calibration_on_data"
    assert min(holm([test.p_value for test in result.tests()])) > FAIL_LEVEL


class WrongFarOut(ExactGuide):
    """The exact posterior near the origin, shifted for the data beyond."""

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        p = super().distribution(x)
        far = (x.norm(dim=1, keepdim=True) > 8).to(x)
        return dist.MultivariateNormal(p.mean + far, p.covariance_matrix)


def test_simulated_data_do_not_show_what_is_wrong_at_the_data() -> None:
    """A blind spot: simulated data are where the model puts them. At the data it is seen."""
    model = example_a.model()
    vae, x = probvae.VAE(model, WrongFarOut(model)), 8 + torch.rand(200, 3, dtype=torch.float64)
    assert min(holm(p_values(vae, seed=0).values())) > FAIL_LEVEL
    assert calibration_on_data(vae, x).tests()[0].p_value < 1e-10


@pytest.mark.parametrize("score", [math.inf, -math.inf, math.nan])
def test_scores_that_are_not_finite_are_not_ok(score: float) -> None:
    result = calibration(exact_guide_vae(), num_simulations=50, num_draws=20)
    result.score[3, 1] = score
    verdicts = {verdict.name: verdict for verdict in judge(result.tests())}
    for name in ("calibration/z_score", "calibration/spread"):
        assert verdicts[name].status == "not computed"
        assert "standard deviation of some z is zero or not finite" in verdicts[name].message
    assert verdicts["calibration/sbc"].status == "ok"


def test_not_computed_with_the_reason() -> None:
    found = calibration(probvae.VAE(probvae.VAE.example().model, FreeGuide.example()))
    assert isinstance(found, NotComputed)
    assert "FreeGuide is not amortised" in found.reason
    deep = LatentModel(StandardNormalPrior(3), MLPDecoder(3, 2), GaussianLikelihood(2))
    found = calibration_on_data(probvae.VAE(deep, DiagonalGuide(MLPEncoder(2), 3)), torch.zeros(30, 2))
    assert isinstance(found, NotComputed)
    assert found.name == "calibration_on_data"
    assert "latent_dim=3" in found.reason


def test_wrong_arguments() -> None:
    vae = exact_guide_vae()
    with pytest.raises(ArgumentError, match="num_simulations: expected an integer >= 20, got 3"):
        calibration(vae, num_simulations=3)
    with pytest.raises(ArgumentError, match="num_draws: expected an integer >= 20"):
        calibration(vae, num_draws=0)
    with pytest.raises(ArgumentError, match="x: expected at least 20 data, got 2"):
        calibration_on_data(vae, example_a.X)


class NaNGuide(ExactGuide):
    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return dist.Normal(torch.full((len(x), 2), torch.nan), 1.0, validate_args=False).to_event(1)


def test_draws_that_are_not_finite_are_an_error() -> None:
    model = example_a.model()
    with pytest.raises(DataError, match="guide: q_x gives draws that are not finite for 20 of 20 data"):
        calibration(probvae.VAE(model, NaNGuide(model)), num_simulations=20, num_draws=20)


@pytest.mark.parametrize("name", sorted(Guide.registry))
def test_every_amortised_guide(name: str) -> None:
    guide = Guide.registry[name].example()
    if guide.latent_dim != 2 or not guide.amortized:
        pytest.skip("not amortised")
    model = guide.model if isinstance(guide, ExactGuide) else probvae.VAE.example().model
    result = calibration(probvae.VAE(model, guide), num_simulations=30, num_draws=20)
    assert all(0 <= test.p_value <= 1 for test in result.tests())
    assert result.score.isfinite().all()


def test_data_of_the_same_seed_are_not_mistaken_for_a_fault() -> None:
    vae = exact_guide_vae()
    result = calibration_on_data(vae, simulate_pairs(vae, 200, seed=0).x, seed=0)
    assert min(test.p_value for test in result.tests()) > 1e-4
