"""Every fault is found, and a right posterior is left in peace; benchmarks/fault_matrix.py has more repetitions."""

import pytest

from probvae.diagnostics.diagnose import diagnose
from tests.diagnostics.fault_matrix import CASES, NO_FAULT, count

REPETITIONS, REPORTS = 6, 40


@pytest.mark.slow
@pytest.mark.parametrize("fault", CASES)
def test_every_fault_is_caught_every_time(fault: str) -> None:
    found = count((CASES[fault], seed) for seed in range(REPETITIONS))
    assert found.any_fail == REPETITIONS, found


@pytest.mark.slow
def test_without_a_fault_at_most_one_report_in_twenty_fails() -> None:
    found = count((NO_FAULT[number % len(NO_FAULT)], 2000 + number) for number in range(REPORTS))
    assert found.any_fail <= REPORTS / 20, found


def test_the_blind_spots_are_where_the_documentation_has_them() -> None:
    vae, x = CASES["guide = prior"](5)

    status = {verdict.name: verdict.status for verdict in diagnose(vae, x, seed=5).verdicts}
    assert status["calibration/sbc"] == status["calibration/central_coverage"] == "ok"
    assert status["calibration/log_weight"] == status["calibration/c2st"] == status["calibration/tarp"] == "fail"
    assert status["gap/total"] == status["latent_usage/collapse"] == "fail"
