"""Verdicts, and tests judged together."""

import json
import math

import numpy as np
import pytest
import torch

import probvae
from probvae.diagnostics.verdicts import Effect, HypothesisTest, NotComputed, Verdict, holm, judge, mean_with_error
from tests.diagnostics.faults import affine, faulty
from tests.support.vaes import exact_guide_vae


def step_down(p_values: list[float], level: float) -> set[int]:
    """Holm's procedure as it was published: reject while the smallest of those left is below level / their number."""
    rejected: set[int] = set()
    for index in np.argsort(p_values):
        if p_values[index] >= level / (len(p_values) - len(rejected)):
            break
        rejected.add(int(index))
    return rejected


def test_adjusted_p_values_are_holms_procedure() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        p = list(rng.beta(0.3, 2.0, size=7))
        level = float(rng.uniform(0.005, 0.3))
        assert {i for i, value in enumerate(holm(p)) if value < level} == step_down(p, level)


def test_false_alarms_of_many_true_hypotheses_stay_at_the_level() -> None:
    p_values = np.random.default_rng(0).uniform(size=(20_000, 9))
    alarms = np.array([min(holm(row)) < 0.05 for row in p_values.tolist()])
    assert abs(alarms.mean() - (1 - (1 - 0.05 / 9) ** 9)) < 4 * math.sqrt(0.05 * 0.95 / len(alarms))


def test_judgement_takes_the_message_that_fits() -> None:
    tests = [HypothesisTest("a", 1e-9, "fine", "broken"), HypothesisTest("b", 0.02, "fine", "doubtful")]
    tests.append(HypothesisTest("c", 0.6, "fine", "broken"))
    assert [(v.name, v.status, v.message.split(" (")[0]) for v in judge(tests)] == [
        ("a", "fail", "broken"),
        ("b", "warn", "doubtful"),
        ("c", "ok", "fine"),
    ]
    assert judge([]) == []


def test_a_p_value_that_is_nan_is_not_ok_and_counts_for_no_other() -> None:
    tests = [HypothesisTest("a", math.nan, "why", "why"), HypothesisTest("b", 0.008, "fine", "broken")]
    unknown, other = judge(tests)
    assert (unknown.status, unknown.value, unknown.message) == ("not computed", None, "not computed: why")
    assert (other.status, other.value) == ("fail", 0.008)


def test_what_was_not_computed_says_why_and_is_not_ok() -> None:
    (verdict,) = NotComputed("calibration", "the guide is not amortised").verdicts()
    assert (verdict.status, verdict.value) == ("not computed", None)
    assert "the guide is not amortised" in verdict.message


def test_a_verdict_is_json() -> None:
    plain = Verdict("importance", "ok", -math.inf, 0.7, "perfect").as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False))["value"] is None


def test_mean_with_its_error() -> None:
    values = torch.tensor([1.0, 4.0, 2.5])
    assert mean_with_error(values)["standard_error"] == pytest.approx(values.std().item() / math.sqrt(3))
    assert mean_with_error(values[:1]) == {"value": 1.0, "standard_error": None}


@pytest.mark.parametrize(
    ("p", "value", "unit", "status"),
    [
        (1e-9, 0.1, "nats", "fail"),
        (1e-9, 0.03, "nats", "warn"),
        (1e-9, 0.005, "nats", "ok"),
        (0.02, 0.1, "nats", "warn"),
        (0.3, 0.1, "nats", "ok"),
        (1e-9, 0.03, "nats at least", "fail"),
        (1e-9, 0.12, "coverage", "fail"),
        (1e-9, 0.07, "coverage", "warn"),
        (1e-9, 0.03, "coverage", "ok"),
    ],
)
def test_a_fail_needs_p_and_an_effect_that_matters(p: float, value: float, unit: str, status: str) -> None:
    (verdict,) = judge([HypothesisTest("a", p, "fine", "broken", Effect(value, 0.0, 2 * value, unit))])
    assert (verdict.status, verdict.value) == (status, p)
    assert verdict.message.startswith("fine" if p > 0.05 else "broken")
    assert ("a real difference, too small to matter" in verdict.message) is (status == "ok" and p < 0.05)
    assert verdict.as_dict()["effect"]["value"] == value


def test_effects_and_their_intervals() -> None:
    shift = Effect.of_mean(-0.3, 0.05)
    assert (shift.value, shift.unit) == (pytest.approx(0.045), "nats")
    assert (shift.low, shift.high) == (pytest.approx(0.202**2 / 2), pytest.approx(0.398**2 / 2))
    assert Effect.of_mean(0.1, 0.1).low == 0
    # Wilson's interval for 80 of 100 is [.711, .867]
    share = Effect.of_share(0.8, 0.9, 100)
    assert (share.value, share.low, share.high) == (
        pytest.approx(0.1),
        pytest.approx(0.0333, abs=1e-3),
        pytest.approx(0.1888, abs=1e-3),
    )
    assert str(shift) == "0.045 nats [0.02, 0.079]"
    assert str(Effect(0.169, 0.14, 0.197, "coverage", "for balls")) == "off by 16.9% [14.0%, 19.7%] for balls"


def test_a_small_bias_at_many_data_is_no_fail() -> None:
    """A mean that is off by 0.1 standard deviations costs 0.005 nats: real, and too small to matter."""
    vae = faulty(exact_guide_vae(), "mean + 1 sd")
    vae.guide.fault = affine(shift=0.1)
    judged = {v.name: v for v in judge(probvae.diagnostics.calibration(vae, seed=3).tests())}
    bias = judged["calibration/z_score"]
    assert bias.status == "ok"
    assert bias.value < 1e-3
    assert "mean is biased; a real difference, too small to matter (0.00" in bias.message
    assert {v.status for v in judged.values()} <= {"ok", "warn"}
