"""Predictive checks: the statistics by hand, exact p-values, and what they see."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import probvae
from probvae.diagnostics.prediction.data_statistics import default_statistics, evaluate
from probvae.diagnostics.prediction.loo import Loo, psis_loo
from probvae.diagnostics.prediction.predictive_check import PredictiveCheckResult, predictive_check
from probvae.diagnostics.prediction.typicality import Typicality
from probvae.diagnostics.verdicts import NotComputed, judge
from probvae.errors import ArgumentError
from probvae.foundation.row_noise import RowNoise, row_keys
from probvae.inference import ExactGuide, FreeGuide, exact_log_evidence
from probvae.inference.encoders import LinearEncoder, MaskedEncoder
from probvae.inference.evaluation.memory import draw_z
from probvae.inference.evaluation.simulation import simulate_pairs
from probvae.inference.evidence.importance_sampling import importance_log_evidence
from probvae.inference.evidence.log_evidence import log_evidence
from probvae.models import (
    CategoricalLikelihood,
    GaussianLikelihood,
    LabelCovariates,
    LatentModel,
    LinearDecoder,
    LinearGaussianModel,
    MLPDecoder,
    PoissonLikelihood,
    StandardNormalPrior,
)
from tests.support import example_a
from tests.support.arviz_psis import arviz_psislw
from tests.support.vaes import exact_guide_vae


def check(vae: probvae.VAE, x: Tensor, **options: object) -> PredictiveCheckResult:
    """Few replicates and no loo, where nothing more is looked at."""
    return predictive_check(vae, x, **{"num_replicates": 99, "num_simulated": 300, "num_draws": 1, **options})


def test_default_statistics_by_hand() -> None:
    rng = np.random.default_rng(4)
    x = rng.gamma(2.0, size=(30, 4)) * [1.0, 3.0, 0.5, 2.0]
    correlation = np.abs(np.corrcoef(x.T))[np.triu_indices(4, 1)].mean()
    expected = {
        "mean": x.mean(),
        "standard deviation": math.sqrt(x.var(0).mean()),
        "skewness": stats.skew(x).mean(),
        "kurtosis": stats.kurtosis(x, fisher=False).mean(),
        "smallest": x.min(),
        "largest": x.max(),
        "mean |correlation|": correlation,
    }
    simulated = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4))
    inverse = np.linalg.inv(np.cov(simulated.T, ddof=0))
    distance = np.einsum("ni,ij,nj->n", x - simulated.mean(0), inverse, x - simulated.mean(0))
    expected |= {"whitened variance": distance.mean() / 4, "largest whitened distance": distance.max()}
    vectors = np.linalg.eigh(np.cov(simulated.T))[1]
    expected["whitened kurtosis"] = stats.kurtosis((x - simulated.mean(0)) @ vectors, fisher=False).max()
    expected["whitened joint kurtosis"] = (distance**2).mean() / distance.mean() ** 2
    model = LatentModel(StandardNormalPrior(1), LinearDecoder(1, 4), GaussianLikelihood(4))
    statistics = default_statistics(model, torch.from_numpy(simulated))
    found = evaluate(statistics, torch.from_numpy(x)[None])[0]
    assert set(statistics) == set(expected)
    assert dict(zip(statistics, found.tolist(), strict=True)) == pytest.approx(expected, rel=1e-10)


def test_statistics_of_data_with_holes_and_constant_columns() -> None:
    x = torch.randn(20, 3, dtype=torch.float64)
    x[:, 1] = 0.1
    x[3:9, 2] = torch.nan
    found = evaluate_default(x)
    known = x[~x.isnan()]
    assert found["mean"] == pytest.approx(known.mean().item(), abs=1e-12)
    assert (found["smallest"], found["largest"]) == (known.min().item(), known.max().item())
    columns = [x[:, 0].numpy(), x[:, 2][~x[:, 2].isnan()].numpy()]
    assert found["kurtosis"] == pytest.approx(stats.kurtosis(columns[0], fisher=False) * 20 / 34
                                              + stats.kurtosis(columns[1], fisher=False) * 14 / 34)  # fmt: skip
    assert 0 <= found["mean |correlation|"] <= 1


def evaluate_default(x: Tensor) -> dict[str, float]:
    model = LatentModel(StandardNormalPrior(1), LinearDecoder(1, x.shape[1]), GaussianLikelihood(x.shape[1]))
    statistics = default_statistics(model, torch.randn(30, x.shape[1]).to(x))
    return dict(zip(statistics, evaluate(statistics, x[None])[0].tolist(), strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_statistics_of_the_smallest_data(shape: tuple[int, int]) -> None:
    assert all(math.isfinite(value) for value in evaluate_default(torch.randn(shape)).values())


def test_counts_have_a_share_of_zeros() -> None:
    x = torch.tensor([[[0.0, 2.0], [torch.nan, 0.0], [1.0, 3.0]]])
    model = LatentModel(StandardNormalPrior(1), LinearDecoder(1, 2), PoissonLikelihood(2))
    statistics = default_statistics(model, torch.randn(9, 2))
    assert statistics["share of zeros"](x).tolist() == pytest.approx([2 / 5])


def test_replicates_are_data_sets_of_the_model() -> None:
    vae, x = exact_guide_vae(), simulate_pairs(exact_guide_vae(), 40, seed=5).x
    statistics = {
        "mean": lambda x: x[..., 0].mean(-1),
        "second": lambda x: (x[..., 1] - example_a.B[1]).square().mean(-1),
    }
    result = check(vae, x, statistics=statistics, num_replicates=2000)
    variance = (example_a.W @ example_a.W.T).diagonal() + example_a.C
    mean, second = result.replicated.T
    assert mean.mean().item() == pytest.approx(0.1, abs=4 * math.sqrt(variance[0] / 40 / 2000))
    assert mean.var().item() == pytest.approx(variance[0].item() / 40, rel=4 * math.sqrt(2 / 2000))
    assert second.mean().item() == pytest.approx(variance[1].item(), abs=4 * second.std().item() / math.sqrt(2000))


def test_posterior_replicates_have_the_z_of_their_datum() -> None:
    vae = exact_guide_vae(0.01)
    x = simulate_pairs(vae, 5, seed=5).x
    result = check(vae, x, statistics={"last": lambda x: x[..., -1, 0]}, num_replicates=200)
    p = ExactGuide(vae.model).distribution(x[-1:])
    expected = p.mean[0] @ example_a.W[0] + example_a.B[0]
    variance = example_a.W[0] @ p.covariance_matrix[0] @ example_a.W[0] + 0.01
    values = result.posterior_replicated[:, 0]
    assert values.mean().item() == pytest.approx(expected.item(), abs=4 * math.sqrt(variance / 200))
    assert values.var().item() == pytest.approx(variance.item(), rel=4 * math.sqrt(2 / 200))


def test_chunks_change_nothing_but_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, x = exact_guide_vae(), simulate_pairs(exact_guide_vae(), 20).x
    monkeypatch.setattr("probvae.inference.evaluation.memory.MEMORY_LIMIT", 6 * 8 * 3 * 20 * 7)
    result = check(vae, x, num_replicates=30)
    assert result.replicated.shape == (30, 11)
    assert len(result.replicated[:, 0].unique()) == 30


def test_many_data_are_checked_by_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, x = exact_guide_vae(), simulate_pairs(exact_guide_vae(), 101).x
    statistics = {"first": lambda x: x[..., 0, 0], "last": lambda x: x[..., -1, 0]}
    result = check(vae, x, statistics=statistics, num_rows=3)
    assert result.observed.tolist() == [x[0, 0].item(), x[-1, 0].item()]
    assert (result.summary()["num_rows"], result.summary()["num_data"]) == (3, 101)
    module = sys.modules[
        "probvae.diagnostics.prediction.predictive_check"
    ]  # the package has the function under this name
    monkeypatch.setattr(module, "_MOST_ENTRIES", 99 * 3 * 50)
    assert check(vae, x).num_rows == 50
    monkeypatch.setattr(module, "_MOST_ENTRIES", 1)
    assert check(vae, x).num_rows == 20
    y = ["a", "b"] * 50
    model = LatentModel(StandardNormalPrior(1), LinearDecoder(3, 2), GaussianLikelihood(2), LabelCovariates(["a", "b"]))
    given = probvae.VAE(model, probvae.DiagonalGuide(LinearEncoder(4), 1)).given(y)
    assert check(given, torch.randn(100, 2), num_rows=7).num_rows == 7


def test_infinite_values_are_far() -> None:
    vae, x = exact_guide_vae(), example_a.X + 100
    result = check(vae, x, statistics={"power": lambda x: (40 * x.amax((-2, -1))).exp()})
    assert result.family_p_value <= 1 / 100
    json.dumps(result.summary(), allow_nan=False)


@pytest.mark.slow
def test_p_values_of_a_right_model_are_uniform() -> None:
    """200 data sets, simulated with the very seed that the check gets; a diagonal guide does no harm."""
    right = exact_guide_vae()
    vae = probvae.VAE(right.model, probvae.best_diagonal_guide(right.model))
    p_values: dict[str, list[float]] = {}
    for seed in range(200):
        result = check(vae, simulate_pairs(vae, 40, seed=seed).x, seed=seed, num_samples=5)
        for test in result.tests():
            p_values.setdefault(test.name, []).append(test.p_value)
    assert list(p_values) == ["prediction/statistics", "prediction/typicality"]
    for values in p_values.values():
        assert stats.kstest(values, "uniform", alternative="greater").pvalue > 1e-3
        assert stats.binomtest(sum(p <= 0.05 for p in values), 200, 0.05, alternative="greater").pvalue > 1e-3
    assert stats.kstest(p_values["prediction/statistics"], "uniform").pvalue > 1e-3


def data_of(fault: str, generator: torch.Generator) -> Tensor:
    z = torch.randn(500, 2, dtype=torch.float64, generator=generator)
    noise = torch.randn(500, 3, dtype=torch.float64, generator=generator)
    if fault == "wide prior":
        z = 1.5 * z
    if fault == "two modes":
        z[:, 0] = 0.3 * z[:, 0] + 1.5 * z[:, 0].sign()
    if fault == "heavy tails":  # Student's t with 3 degrees of freedom, of the same variance
        chi2 = torch.randn(500, 3, 3, dtype=torch.float64, generator=generator).square().sum(-1)
        noise = noise / (chi2 / 3).sqrt() / math.sqrt(3)
    c = {"c twice": 2 * example_a.C, "c half": example_a.C / 2}.get(fault, example_a.C)
    return z @ example_a.W.T + example_a.B + math.sqrt(c) * noise


FAULTS = ["c twice", "c half", "wide prior", "two modes", "heavy tails"]


def is_seen(fault: str, seed: int) -> bool:
    """Judged as in a report, by Holm's p-values below 0.01."""
    x = data_of(fault, torch.Generator().manual_seed(seed))
    tests = check(exact_guide_vae(), x, num_replicates=999, num_simulated=2000, seed=seed).tests()
    return any(verdict.status == "fail" for verdict in judge(tests))


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_model_are_seen(fault: str) -> None:
    assert all(is_seen(fault, seed) for seed in range(2))


# Heavy tails are a warning in one of the twenty sets since effects are judged beside p-values.
MISSED_ONCE = pytest.mark.xfail(strict=False, reason="19 of 20: one set is a warning and no fail")


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[MISSED_ONCE] if fault == "heavy tails" else []) for fault in FAULTS]
)
def test_faults_of_the_model_are_seen_twenty_times_of_twenty(fault: str) -> None:
    assert sum(is_seen(fault, seed) for seed in range(20)) == 20


def test_messages_say_what_is_wrong() -> None:
    generator = torch.Generator().manual_seed(0)
    low = judge(check(exact_guide_vae(example_a.C / 4), data_of("none", generator), num_simulated=2000).tests())[1]
    assert "The data are less probable than data from the model" in low.message
    assert "Is the noise variance c too small" in low.message
    high = judge(check(exact_guide_vae(4 * example_a.C), data_of("none", generator), num_simulated=2000).tests())[1]
    assert "Is the noise variance c too large" in high.message
    heavy = judge(check(exact_guide_vae(), data_of("heavy tails", generator), num_replicates=399).tests())[0]
    assert heavy.status == "fail"
    assert "whitened" in heavy.message
    assert "95 % of theirs lie in [" in heavy.message


def test_anomaly_is_the_share_of_less_probable_simulated_data() -> None:
    vae = exact_guide_vae()
    x = torch.cat([simulate_pairs(vae, 30, seed=8).x, example_a.B[None] + 20, example_a.B[None]])
    result = check(vae, x)
    part = result.typicality
    assert isinstance(part, Typicality)
    exact = exact_log_evidence(vae.model, x).detach()
    assert torch.allclose(part.log_p, exact, rtol=0, atol=1e-9)
    expected = [(part.simulated < value).double().mean().item() for value in part.log_p]
    assert result.anomaly.tolist() == pytest.approx(expected)
    assert part.most_anomalous(1).tolist() == [30]
    assert result.anomaly[30] == 0
    assert result.anomaly[31] == 1  # the mode itself is more probable than all that is drawn
    assert result.summary()["typicality"]["most_anomalous"][0]["row"] == 30


def lame_vae(latent_dim: int) -> probvae.VAE:
    """A network for the decoder, and a narrow guide at zero, which knows the worst what lies far from there."""
    torch.manual_seed(2)
    model = LatentModel(
        StandardNormalPrior(latent_dim), MLPDecoder(latent_dim, 4, hidden=(8,)), GaussianLikelihood(4, variance=0.02)
    )
    vae = probvae.VAE(model, probvae.DiagonalGuide(LinearEncoder(4), latent_dim)).double()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(2.0)
        for parameter in vae.guide.parameters():
            parameter.zero_()
        vae.guide.log_scale.bias.copy_(example_a.raw_scale(torch.full((latent_dim,), 0.1, dtype=torch.float64)))
    return vae


def test_least_probable_rows_are_those_by_quadrature() -> None:
    vae = lame_vae(2)
    x = simulate_pairs(vae, 60, seed=5).x
    truth = log_evidence(vae, x, "quadrature").value
    by_draws = importance_log_evidence(vae, x, 50).log_evidence
    assert by_draws.argsort()[:5].tolist() != truth.argsort()[:5].tolist()
    part = check(vae, x, row_numbers=[100 + row for row in range(60)]).typicality
    assert isinstance(part, Typicality)
    assert (part.method, part.num_samples, part.evidence.method) == ("quadrature", None, "quadrature")
    assert part.most_anomalous(5).tolist() == truth.argsort()[:5].tolist()
    first = part.summary()["most_anomalous"][0]
    assert first["row"] == 100 + int(truth.argmin())
    assert first["log_p"] == pytest.approx(float(truth.min()), abs=1e-3)
    assert part.summary()["ranked_by"] == "quadrature (exact)"


def test_least_probable_rows_are_ranked_by_annealing_where_there_is_no_quadrature() -> None:
    vae = lame_vae(3)
    x = torch.cat([simulate_pairs(vae, 20, seed=5).x, torch.full((1, 4), 6.0, dtype=torch.float64)])
    part = check(vae, x, num_listed=4).typicality
    assert isinstance(part, Typicality)
    assert (part.method, part.num_samples, part.evidence.method) == ("importance", 50, "annealed")
    assert part.most_anomalous(1).tolist() == [20]
    assert len(part.summary()["most_anomalous"]) == 4
    expected = log_evidence(vae, x[part.least], "annealed", seed=104_730)  # of this stream
    assert torch.equal(part.evidence.value, expected.value)
    assert (part.evidence.value.diff() >= 0).all()
    assert part.summary()["ranked_by"] == "annealed (lower bound)"


def test_row_numbers_are_those_of_all_rows() -> None:
    with pytest.raises(ArgumentError, match="row_numbers: expected one for each of 2 rows, got 1"):
        check(exact_guide_vae(), example_a.X, row_numbers=[3])


def test_evidence_is_computed_or_taken() -> None:
    vae = exact_guide_vae()
    result = check(vae, example_a.X)
    assert result.evidence.value.tolist() == pytest.approx(example_a.LOG_P.tolist(), abs=1e-10)
    assert result.summary()["log_evidence"]["method"] == "exact"
    assert check(vae, example_a.X, evidence=result.evidence).evidence is result.evidence
    first = check(vae, torch.cat([example_a.X, example_a.X]), evidence=result.evidence).summary()
    assert (first["log_evidence"]["num_data"], first["num_data"]) == (2, 4)
    with pytest.raises(ArgumentError, match="for the 1 rows of x, or the first of them, got one for 2"):
        check(vae, torch.zeros(1, 3), evidence=result.evidence)


def test_loo_is_arvizs_and_comes_to_the_evidence() -> None:
    """A wide posterior, where the harmonic mean works: c far above the signal."""
    model = LinearGaussianModel(0.3 * example_a.W, example_a.B, 1.0)
    vae = probvae.VAE(model, ExactGuide(model))
    x = simulate_pairs(vae, 20).x
    loo = psis_loo(vae, x, num_draws=2500)
    assert isinstance(loo, Loo)
    assert loo.num_bad == 0
    assert (loo.elpd - exact_log_evidence(model, x)).abs().max() < 0.05
    # the two versions of ArviZ have tails of the same length for so many draws
    z = draw_z(vae, x, vae(x), 2500, RowNoise(row_keys(x), 0))
    ll = model.likelihood(model.decoder(z)).log_prob(x).detach()
    log_weights, k = arviz_psislw(-ll)
    by_hand = np.log(np.exp(log_weights + ll.numpy()).sum(0))
    np.testing.assert_allclose(loo.elpd, by_hand, atol=1e-10)
    np.testing.assert_allclose(loo.pareto_k, k, atol=1e-10)


def test_loo_says_where_it_cannot_be_read() -> None:
    vae = exact_guide_vae(0.01)
    summary = check(vae, simulate_pairs(vae, 20).x, num_draws=500).summary()["loo"]
    assert summary["num_above_good_k"] > 0
    assert "log p(x_n) itself" in summary["meaning"]
    (verdict,) = check(vae, example_a.X).verdicts()
    assert (verdict.name, verdict.status) == ("prediction/loo", "not computed")


def test_a_guide_of_the_training_data_has_no_typicality() -> None:
    x = torch.randn(6, 3)
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3))
    result = check(probvae.VAE(model, FreeGuide(2, 3, 6).start_from(x)), x)
    assert isinstance(result.typicality, NotComputed)
    assert result.anomaly is None
    assert {v.name: v.status for v in result.verdicts()}["prediction/typicality"] == "not computed"
    assert [test.name for test in result.tests()] == ["prediction/statistics"]


def test_missing_entries_are_missing_in_the_replicates_too() -> None:
    likelihood, guide = GaussianLikelihood(3), probvae.DiagonalGuide(MaskedEncoder(LinearEncoder(6), 3), 2)
    vae = probvae.VAE(LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), likelihood, missing="mask"), guide)
    x = torch.randn(12, 3)
    x[2:7, 1] = torch.nan
    result = check(
        vae, x, statistics={"holes": lambda x: x.isnan().sum((-2, -1)), "mean": lambda x: x.nanmean((-2, -1))}
    )
    assert (result.replicated[:, 0] == 5).all()
    assert result.p_values[0] == 1
    assert check(vae, x).family_p_value > 0
    with pytest.raises(ArgumentError, match=r"from 'sum', got NaN.*x\.nanmean"):
        check(vae, x, statistics={"sum": lambda x: x.sum((-2, -1))})


@pytest.mark.parametrize("num_data", [1, 2])
def test_categories_covariates_and_few_data(num_data: int) -> None:
    likelihood = CategoricalLikelihood(2, num_categories=3)
    model = LatentModel(StandardNormalPrior(1), LinearDecoder(3, 6), likelihood, LabelCovariates(["a", "b"]))
    vae = probvae.VAE(model, probvae.DiagonalGuide(LinearEncoder(4), 1)).given(["a", "b"][:num_data])
    result = check(vae, torch.tensor([[0.0, 2.0], [1.0, 1.0]])[:num_data])
    assert result.names[-1] == "share of zeros"
    assert all(0 < test.p_value <= 1 for test in result.tests())


def test_summary_is_json_and_nothing_is_left_changed() -> None:
    vae, x = exact_guide_vae(), simulate_pairs(exact_guide_vae(), 15).x
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (check(vae, x, seed=3, num_draws=200).summary() for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)


def test_bad_statistics() -> None:
    vae, x = exact_guide_vae(), example_a.X
    with pytest.raises(
        ArgumentError, match=r"expected 'mean' to give one number.*shape \(1,\) for x of shape \(1, 2, 3\)"
    ):
        check(vae, x, statistics={"mean": lambda x: x.mean()})
    with pytest.raises(ArgumentError, match="got float"):
        check(vae, x, statistics={"mean": lambda x: float(x.mean())})
    with pytest.raises(ArgumentError, match="statistics: expected functions by name"):
        check(vae, x, statistics={})
    with pytest.raises(ArgumentError, match="num_replicates: expected an integer >= 1, got 0"):
        check(vae, x, num_replicates=0)
