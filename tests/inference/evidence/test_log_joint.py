"""log p(x, z) of many pairs by one matrix product, against the density of each pair."""

import pytest
import torch
from torch.testing import assert_close

from probvae.inference.evidence.log_joint import LogJoint, affine_form, double_copy
from probvae.models import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    LaplaceLikelihood,
    LatentModel,
    Likelihood,
    MLPDecoder,
    PoissonLikelihood,
    StandardNormalPrior,
)


def model_and_data(likelihood: Likelihood) -> tuple[LatentModel, torch.Tensor]:
    decoder = MLPDecoder(2, 3, hidden=(5,), num_outputs=likelihood.num_outputs)
    model = double_copy(LatentModel(StandardNormalPrior(2), decoder, likelihood), torch.device("cpu"))
    return model, model(num_data=6).detach()


def per_dimension() -> Likelihood:
    likelihood = GaussianLikelihood(3, variance="per-dimension")
    likelihood.log_variance.data = torch.tensor([0.1, 2.0, 30.0]).log()
    return likelihood


@pytest.mark.parametrize(
    ("likelihood", "by_product"),
    [
        (GaussianLikelihood(3, variance=0.3), True),
        (per_dimension(), True),
        (GaussianLikelihood(3, variance="per-datum", initial_variance=2.0), True),
        (BernoulliLikelihood(3), True),
        (PoissonLikelihood(3), True),
        (PoissonLikelihood(3).given_exposure(torch.tensor([[7.0]])), True),
        (CategoricalLikelihood(3, num_categories=4), True),
        (LaplaceLikelihood(3, scale=0.3), False),
    ],
)
@pytest.mark.parametrize("rounding", [1e-6, 0.0], ids=["product", "one by one"])
def test_all_pairs(likelihood: Likelihood, by_product: bool, rounding: float) -> None:
    model, x = model_and_data(likelihood)
    z = torch.randn(4, 7, 2, dtype=torch.float64)
    datum, cell = torch.tensor([0, 5, 5, 2, 1]), torch.tensor([3, 0, 1, 1, 2])
    form = affine_form(model.likelihood(model.decoder(z[0])), x, x.mean(0))
    assert (form is not None) == by_product
    expected = model.log_joint(x[datum].unsqueeze(1), z[cell])
    assert_close(LogJoint(model, x, rounding)(z, datum, cell), expected, rtol=1e-11, atol=1e-11)


def test_a_rate_that_overflows_goes_one_by_one() -> None:
    model, x = model_and_data(PoissonLikelihood(3))
    model.decoder.network[-1].bias.data[0] = 800.0
    z = torch.randn(1, 4, 2, dtype=torch.float64)
    values = LogJoint(model, x, 1e-6)(z, torch.arange(6), torch.zeros(6, dtype=torch.long))
    assert (values == -torch.inf).all()
