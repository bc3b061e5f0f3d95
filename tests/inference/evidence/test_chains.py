"""The NUTS reference: right on example A, and refused when it has not mixed."""

import pytest
import torch

from probvae.errors import ProbvaeError
from probvae.inference.evidence.chains import NotAReferenceError, nuts_reference
from tests.support import example_a


@pytest.mark.slow
def test_reference_on_example_a() -> None:
    result = nuts_reference(example_a.model(), example_a.X, num_samples=1000).require_reference()
    covariance = torch.linalg.inv(example_a.precision())
    expected = (example_a.X - example_a.B) @ example_a.W / example_a.C @ covariance
    assert ((result.mean() - expected).abs() < 4 * result.mcse()).all()
    z = result.samples.flatten(0, 1)
    for n in range(2):
        error = (covariance.diagonal()[:, None] * covariance.diagonal() + covariance**2).sqrt()
        assert ((torch.cov(z[:, n].T) - covariance).abs() < 4 * error / result.ess[n].min().sqrt()).all()


def test_too_few_draws_are_no_reference() -> None:
    model, state = example_a.model(), torch.get_rng_state()
    result = nuts_reference(model, example_a.X[:1], num_samples=20, num_warmup=10)
    assert torch.equal(state, torch.get_rng_state())
    assert not result.is_reference
    with pytest.raises(NotAReferenceError, match=r"R-hat|effective sample size.*Raise num_samples"):
        result.require_reference()


def test_bad_arguments() -> None:
    with pytest.raises(ProbvaeError, match="num_chains: expected an integer >= 2"):
        nuts_reference(example_a.model(), example_a.X, num_chains=1)
    with pytest.raises(ProbvaeError, match="expected 3 columns"):
        nuts_reference(example_a.model(), example_a.X[:, :2])
